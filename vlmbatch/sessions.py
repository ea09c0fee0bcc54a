"""The Python interface for single images: sessions, in an event loop or for many threads."""

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from vlmbatch.config import RunConfig, given_config
from vlmbatch.config.answer_class import AnswerT, SchemaText
from vlmbatch.config.keywords import QuestionKeywords, SessionKeywords
from vlmbatch.config.spec import require
from vlmbatch.errors import ConfigError, SessionClosed, VlmbatchError, VlmbatchWarning, shortened
from vlmbatch.events import Event, checked_observers
from vlmbatch.observers.format import clean
from vlmbatch.observers.notices import Line
from vlmbatch.observers.session_warnings import SessionWarnings
from vlmbatch.pipeline.image_pairs import ImageAndQuestion
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.session import MOST_WAITING, Session, opened
from vlmbatch.pipeline.session_state import SessionState
from vlmbatch.protocols import Observer
from vlmbatch.records import Result
from vlmbatch.sources.given import GivenImage

T = TypeVar("T")
_OPEN_ASYNC = "async with open_session(...) as session"


def open_session(
    *,
    config: "RunConfig | None" = None,
    observers: "Sequence[Observer]" = (),
    wait: bool = True,
    max_waiting: int = MOST_WAITING,
    schema: "type[AnswerT] | SchemaText | None" = None,
    **options: "Unpack[SessionKeywords]",
) -> "SessionContext":
    """A session of one model, for ``async with`` in an event loop, or for ``with`` in any thread.

    ::

        with open_session(model="qwen2.5vl") as session:
            question = session.question(prompt="Describe this image")
            result = session.answer("photos/cat.jpg", question)
            print(result.text or result.error)

    Many threads may call a session at once. In an event loop, write ``async with`` and ``await
    session.answer(...)``, and any number of tasks may call it. If an endpoint stays down, callers get an
    exception, and the session continues to try it. Closing waits up to `drain` seconds for the
    requests in flight.

    The session warns with a VlmbatchWarning at the line that calls this function. If a filter turns a warning
    into an exception, the exception ends the session and is raised at the end of the ``with``.

    Args:
        config: all options as one value, instead of `options`.
        observers: called with every event of the session; vlmbatch.events has the events.
        wait: whether to wait until an endpoint is up; with False, name the model.
        max_waiting: this many calls may wait to begin; further calls raise `Busy`.
        schema: the schema of questions without a schema of their own: a JSON Schema (a dict, a text or a
            file), or a pydantic class.
        options: the options of ``vlmbatch run --help`` by their names with underscores, without those that
            only a run has (paths, output, limits, display). The most common are `model`, `backend` and
            `base_url`.

    Raises:
        ConfigError: an option is unknown, out of range, or only for a run, such as `output`.
    """
    try:
        config = given_config(config, RunConfig.of_session, schema, options)
        _check_max_waiting(max_waiting)
    except ConfigError as error:
        raise shortened(error) from None
    line = Line.of(sys._getframe(1))
    return SessionContext(config, checked_observers(observers), line=line, wait=wait, max_waiting=max_waiting)


def _check_max_waiting(number: object) -> None:
    """Raise ConfigError unless `max_waiting` is a whole number of at least 1."""
    is_allowed = isinstance(number, int) and not isinstance(number, bool) and number >= 1
    require(is_allowed, f"max_waiting must be a whole number of at least 1, not {number!r}")


class SessionContext:
    """A session that is not open yet: ``async with`` opens a Session, ``with`` opens a SyncSession."""

    def __init__(
        self, config: RunConfig, observers: Sequence[Observer], *, line: Line, wait: bool, max_waiting: int
    ) -> None:
        """open_session() makes it. Warnings refer to `line`."""
        self._config = config
        self._observers = observers
        self._warnings = SessionWarnings(line)
        self._wait = wait
        self._max_waiting = max_waiting
        self._opened: AsyncExitStack | None = None
        self._sync: SyncSession | None = None

    async def __aenter__(self) -> Session:
        try:
            return await self._open()
        except VlmbatchError as error:
            raise shortened(error) from None

    async def _open(self) -> Session:
        with self._warnings.raising_in_this_task():
            async with AsyncExitStack() as stack:
                opening = opened(self._config, self._notify, wait=self._wait, max_waiting=self._max_waiting)
                session = await stack.enter_async_context(opening)
                for note in dict.fromkeys(
                    note for each in session.found if each.endpoint for note in each.endpoint.notes
                ):
                    self._warnings.warn(clean(note))
                await asyncio.sleep(0)  # if a warning is an exception, it ends the session here
                self._opened = stack.pop_all()
        return session

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._opened is not None, "entered before"
        with self._warnings.raising_in_this_task():
            await self._opened.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> "SyncSession":
        self._sync = SyncSession(self)
        return self._sync.__enter__()

    def __exit__(self, *_: object) -> None:
        assert self._sync is not None, "entered before"
        self._sync.close()
        self._warnings.raise_pending()

    if not TYPE_CHECKING:  # hidden from type checkers, so that they report both mistakes

        def __await__(self):
            """Raise a TypeError: await does not open a session."""
            raise TypeError(f"open_session() cannot be awaited; write: {_OPEN_ASYNC}")

        def __getattr__(self, name):
            """Raise AttributeError. If an open session has this name, the message says how to open one."""
            if name in vars(SyncSession) and not name.startswith("_"):
                raise AttributeError(
                    f"this session is not open, so {name} cannot be used yet; "
                    f"write: with open_session(...) as session, or in an event loop: {_OPEN_ASYNC}"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)
        for notice in self._warnings.notices.of(event):
            self._warnings.warn(notice)


class SyncSession:
    """A session for code without an event loop; all methods may be called in any thread, many at once.

    The session itself runs in a thread of its own. Each method is that of Session.
    """

    def __init__(self, context: SessionContext) -> None:
        """``with open_session(...)`` makes it."""
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="vlmbatch-session", daemon=True)
        self._over = asyncio.Event()
        self._session: concurrent.futures.Future[Session] = concurrent.futures.Future()
        self._living: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._session.result()
        except VlmbatchError as error:
            self.close()
            raise shortened(error) from None
        except BaseException:  # an interrupt of the wait: the thread must end, too
            self.close()
            raise
        return self

    def question(
        self, *, schema: "type[AnswerT] | SchemaText | None" = None, **options: "Unpack[QuestionKeywords]"
    ) -> "Question[AnswerT]":
        """A question about images; its options are those of Session.question(), such as `prompt`."""

        async def ask() -> "Question[AnswerT]":
            return self._session.result().question(schema=schema, **options)

        return self._wait(ask())

    def answer(
        self,
        image: "GivenImage | Sequence[GivenImage]",
        question: Question[T],
        *,
        image_id: str | None = None,
        deadline_s: float | None = None,
        reuse: bool = True,
    ) -> Result[T]:
        """The result for this image, or for several images in one request: Session.answer() has more."""
        session = self._session.result()
        return self._wait(
            session.answer(image, question, image_id=image_id, deadline_s=deadline_s, reuse=reuse)
        )

    def answer_many(
        self, pairs: Iterable[ImageAndQuestion[T]], *, deadline_s: float | None = None, reuse: bool = True
    ) -> Iterator[Result[T]]:
        """The results for pairs of image and question, as they are ready: Session.answer_many() has more."""
        results = self._session.result().answer_many(pairs, deadline_s=deadline_s, reuse=reuse)

        async def take() -> Result[T] | None:
            return await anext(results, None)

        try:
            while (result := self._wait(take())) is not None:
                yield result
        finally:
            with suppress(SessionClosed):  # closing the session has ended it
                self._wait(results.aclose())

    @property
    def state(self) -> SessionState:
        """See Session.state."""

        async def look() -> SessionState:
            return self._session.result().state

        return self._wait(look())

    def close(self) -> None:
        """Wait for the requests in flight, and end the thread; also called at the end of the ``with``."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join()

    def _end(self) -> None:
        self._over.set()
        if self._living is not None and not self._session.done():  # an interrupt does not wait for endpoints
            self._living.cancel()

    def _run(self) -> None:
        async def live() -> None:
            self._living = asyncio.current_task()
            try:
                if self._over.is_set():
                    raise SessionClosed("the session was closed before it was open")
                async with self._context as session:
                    self._session.set_result(session)
                    await self._over.wait()
            except BaseException as error:
                if not self._session.done():
                    self._session.set_exception(error)  # carried over to the thread that opens it
                elif not isinstance(error, VlmbatchWarning):  # the end of the ``with`` raises it
                    raise

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(live())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` on the session's loop; work is cancelled if the wait is interrupted."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise SessionClosed("the session is closed; open another one") from error
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise SessionClosed("the session was closed before the call had its answer") from error
        except VlmbatchError as error:
            raise shortened(error) from None
        except BaseException:  # an interrupt of the wait: the work must end, too
            future.cancel()
            raise
