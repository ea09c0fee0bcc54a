"""The protocols of pluggable parts: any class with these methods can be used in the pipeline."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from vlmbatch.events import Event
from vlmbatch.images import FileStamp, ImageRef, ImageVersion, SourceImage
from vlmbatch.records import Completion, Endpoint, Generation, Load, ModelFacts, Request, Result

Observer = Callable[[Event], None]
"""Receives every event of a run, on the event loop's thread; it must return quickly and never raise."""

Tell = Callable[[str], None]
"""Receives a message for the user."""


def quiet(message: str) -> None:
    """Do nothing with a message: a Tell for callers that show no messages."""


Sleep = Callable[[float], Awaitable[None]]
"""Waits for a number of seconds."""

Room = Callable[[int | None], AbstractContextManager[None]]
"""Waits for this many bytes of memory and holds them inside the ``with``; None means the whole limit."""

Finished = Callable[[ImageRef, Callable[[ImageRef], ImageVersion | None]], bool | None]
"""Whether an image is finished: True means done, False failed for good, None still to be processed.

The second argument returns the version of the image, and is called only if it is needed.
"""


class Source(Protocol):
    """Provides images. All methods block and are called in a thread."""

    ignored: int
    """Entries found so far that are no images: other files, FIFOs, devices, broken links of other names."""
    ignored_kinds: Counter[str]
    """How many of them may hold pictures, by kind, such as PDF or ZIP."""
    skipped_entries: Counter[str]
    """Hidden and system entries found so far, such as @eaDir, by kind; a folder is one entry."""
    unreadable: int
    """Folders found so far that could not be listed, and files of unknown type that could not be opened."""

    empty_paths: list[str]
    """The PATHs, walked so far, that are folders without any image. An image that --include or --exclude
    leave out counts as present."""

    def holds_nothing(self) -> bool:
        """Whether all PATHs are folders without any image, also without one that an option leaves out.

        It walks to the first image, and the iteration goes on from there. False for a list of paths.
        """

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield references lazily, in a stable order; called once.

        Raises ResourceError if the machine is out of descriptors or memory.
        """

    def count(self) -> int | None:
        """The number of images, without reading them; None if counting is not cheap."""

    def read(self, ref: ImageRef) -> SourceImage:
        """Read a whole image once.

        Raises:
            ImageError: the file vanished, is unreadable, too large or not a regular file, or the disk failed.
            ResourceError: the machine is out of descriptors or memory: a failure of the run.
        """

    def stamp(self, ref: ImageRef) -> FileStamp | None:
        """Size and mtime of the file, without reading it; None if the file is gone, or the image has none."""

    def version(self, ref: ImageRef) -> ImageVersion | None:
        """The stamp of a file, or the SHA-256 of an image in memory; None if it cannot be read."""


class AsyncContext(Protocol):
    """An object that is opened on entry and always closed on exit."""

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
    """Sends requests to one endpoint."""

    @property
    def name(self) -> str:
        """The name in the table of backends."""

    @property
    def place(self) -> str:
        """The address of the endpoint for messages, without secrets."""

    @property
    def concurrency(self) -> int:
        """A good initial number of simultaneous requests for this engine."""

    def masked(self, text: str) -> str:
        """A text for the user, without the keys and passwords of this endpoint: a server may repeat them."""

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """Check once that the endpoint is up and has the model; find out whether the model has vision.

        Helper requests that fail are notes of the result. If they leave open whether the model is there, a
        question with a picture decides, which may take three times --timeout; `tell` gets the reason first.

        Raises:
            UnreachableError: no connection can be opened.
            UnavailableError: the endpoint is up, but loading or busy.
            FatalBackendError: unknown model, wrong key or URL; the message says what to type next.
            ConfigError: several models and no --model, or --prices without a price for the model.
        """

    async def probe(self) -> None:
        """Check cheaply that the endpoint is up again.

        Raises UnreachableError if no connection can be opened. Any other BackendError only hints that the
        endpoint is not well: a question with a picture decides.
        """

    async def listens(self) -> bool:
        """Whether the endpoint accepts connections; no request is sent.

        False only if it refuses one; true if that is unknown, as over a proxy or without a server.
        """

    async def load(self) -> Load | None:
        """The number of running and of waiting requests at the server; None if it does not report them.

        It takes seconds at most and never raises a BackendError: a failed query also returns None.
        """

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """Load the model with these options; returns the seconds that it took, 0 if nothing was loaded.

        Raises BackendError, as complete() does; the model may then be loaded by the first question.
        """

    async def unload(self) -> None:
        """Unload the model, if the engine keeps it loaded and a client can unload it.

        Raises BackendError if that fails.
        """

    async def complete(self, request: Request) -> Completion:
        """Send one request, without retries.

        `request.deadline_s`, else the backend's own timeout, limits the attempt; the time may restart while
        other requests in flight are answered. Each flaw accepted through `request.accept` is a warning.

        Raises:
            StaleConnectionError: a pooled connection was already closed; retry at once.
            BackendError: always one of its subclasses, classified.
        """


@runtime_checkable
class Catalogue(Protocol):
    """A backend whose engine reports its models."""

    async def models(self) -> list[ModelFacts]:
        """All models, with and without vision.

        Raises a subclass of BackendError, classified: the endpoint is down, or refuses.
        """


@runtime_checkable
class ExplainsWaits(Protocol):
    """A backend that can find out what may delay a request."""

    async def why_slow(self) -> str | None:
        """What may delay a request now, for the user; None if unknown. Takes seconds, never raises."""


class Writer(AsyncContext, Protocol):
    """Stores results."""

    @property
    def notices(self) -> tuple[str, ...]:
        """Notices for the user about the output that begin() found."""

    @property
    def earlier(self) -> Mapping[str, Mapping[str, Any]]:
        """The known settings of earlier runs in this output, by fingerprint and without secrets."""

    async def begin(self, run: str, settings: Mapping[str, Any]) -> Finished:
        """Open the output for the run with this digest; the result says which images are finished.

        Raises:
            ConfigError: the output has records of other settings.
            OutputError: the output cannot be written or read.
        """

    async def write(self, result: Result) -> None:
        """Append one result, completely or not at all.

        Raises:
            OutputError: the result could not be written; the output ends at its last complete line.
        """

    def find(self, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """The record of an answer for this file content and prompt name, or None if none is stored.

        It blocks, and is called in threads.
        """
