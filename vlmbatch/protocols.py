"""The plug shapes: any class of one of these shapes can be plugged into the pipeline."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from vlmbatch.events import Event
from vlmbatch.images import FileStamp, ImageRef, SourceImage
from vlmbatch.records import Completion, Endpoint, Generation, Load, ModelFacts, Request, Result

Observer = Callable[[Event], None]
"""Hears every event of a run, on the event loop's thread; it must return quickly and never raise."""

Sleep = Callable[[float], Awaitable[None]]
"""How to wait for some seconds."""

Room = Callable[[int | None], AbstractContextManager[None]]
"""Holds so many bytes of memory inside the ``with``, or all that may be held where None; waits for them."""

Finished = Callable[[ImageRef, Callable[[], FileStamp | None]], bool | None]
"""Whether an image needs no asking: True done, False failed for good, None has to be asked.

The second argument gives the file's stamp, and is called only when it matters.
"""


class Source(Protocol):
    """Where images come from. All methods block and are called in a thread."""

    ignored: int
    """Entries met so far that are no images: other files, FIFOs, devices, links that lead to nothing."""
    unreadable: int
    """Folders met so far that could not be listed, and files of unknown kind that could not be opened."""

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield references lazily, in a stable order; called once.

        Raises ResourceError where the machine is out of descriptors or memory.
        """

    def count(self) -> int | None:
        """How many images there are, without reading them; None where that is not cheap to know."""

    def read(self, ref: ImageRef) -> SourceImage:
        """Read a whole image once.

        Raises:
            ImageError: vanished, unreadable, too large, not a regular file, or the disk failed.
            ResourceError: the machine is out of descriptors or memory: a trouble of the run.
        """

    def stamp(self, ref: ImageRef) -> FileStamp | None:
        """Size and mtime without reading; None where the file is gone."""


class AsyncContext(Protocol):
    """What is opened on entry and closed on exit, whatever happens."""

    async def __aenter__(self) -> Self:
        """Acquire."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Release."""


class Backend(AsyncContext, Protocol):
    """An engine that looks at pictures."""

    @property
    def name(self) -> str:
        """The name it has in the table of backends."""

    @property
    def place(self) -> str:
        """Where requests go, for people to read; no secrets."""

    @property
    def concurrency(self) -> int:
        """How many requests at once are a good start for this engine."""

    async def preflight(self) -> Endpoint:
        """Find out once whether it is there, knows the model, and can see.

        Raises:
            UnreachableError: nobody takes the connection.
            UnavailableError: it is there, and loading or busy.
            FatalBackendError: unknown model, no vision, wrong key or URL; says what to type next.
        """

    async def probe(self) -> None:
        """Ask cheaply whether it is up again.

        Raises UnavailableError while it is not, TransientError where it fails in passing; whoever refuses
        the question is there.
        """

    async def load(self) -> Load | None:
        """How many requests the server works on and how many wait there; None where it does not tell.

        It never raises a BackendError: who cannot be asked just now does not tell.
        """

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """Have the model loaded with these options; returns the seconds that took, 0 where none is loaded.

        Raises BackendError, as complete() does.
        """

    async def unload(self) -> None:
        """Let go of the model, where the engine keeps one loaded and lets others end that.

        Raises BackendError where it does not.
        """

    async def complete(self, request: Request) -> Completion:
        """Ask once; no retries.

        `request.deadline_s`, else the backend's own timeout, bounds the attempt; the time may start anew
        while others in flight are answered. What `request.accept` let pass stands in the warnings.

        Raises:
            StaleConnectionError: a kept connection had been closed already; ask again at once.
            BackendError: always one of its subclasses, classified.
        """


@runtime_checkable
class Catalogue(Protocol):
    """What a backend also is whose engine tells of itself and of its models."""

    async def models(self) -> list[ModelFacts]:
        """All that it has, whether they see or not.

        Raises BackendError: it is not there, or refuses; one of its subclasses, classified.
        """

    async def version(self) -> str | None:
        """Its version; None where it tells none. Raises like `models`."""


class Writer(AsyncContext, Protocol):
    """Where results go."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of the output as begin() found it."""

    @property
    def earlier(self) -> Iterable[Mapping[str, Any]]:
        """The settings of earlier runs whose records it holds, as far as it remembers them."""

    async def begin(self, run: str, settings: Mapping[str, Any]) -> Finished:
        """Open for the run of this digest and tell what an earlier run has done already.

        Raises:
            ConfigError: the output holds records of other settings.
            OutputError: it cannot be written or read.
        """

    async def write(self, result: Result) -> None:
        """Append one result, whole or not at all.

        Raises:
            OutputError: it could not be written; the output ends at its last whole line.
        """

    def find(self, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """The record of an answer about a file of this content to the prompt of this name, if any is kept.

        It blocks, and is called in threads.
        """
