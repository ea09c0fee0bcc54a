"""The Python interface: runs and sessions, in an event loop or without one."""

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from vlmbatch.config import RunConfig
from vlmbatch.errors import SessionClosed, VlmbatchError
from vlmbatch.events import Event, RunFinished
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.runner import RunContext, run
from vlmbatch.pipeline.session import MOST_WAITING, Asked, Session, opened
from vlmbatch.pipeline.session_state import SessionState
from vlmbatch.protocols import Observer, Sleep
from vlmbatch.records import Result, Summary
from vlmbatch.sources.given import GivenImage

T = TypeVar("T")


def run_batch(
    *paths: str | os.PathLike[str],
    config: RunConfig | None = None,
    observers: "Sequence[Observer]" = (),
    **options: object,
) -> "Batch":
    """Send every image below `paths` to a vision model; iterate over the Batch that this returns.

    ::

        batch = run_batch("photos", prompt="Describe this image", model="qwen2.5vl", output="captions.jsonl")
        for result in batch:
            print(result.id, result.completion.text if result.ok else result.failure.message)
        print(batch.summary)

    Inside an event loop, ``async for`` does the same. Results come as they are ready. With `output`, each
    record is in that file before its result comes, and images that the file has already are skipped.

    Args:
        paths: folders or files. Several are several arguments: ``run_batch(*paths)``.
        config: all options as one value, instead of `paths` and `options`.
        observers: called with every event of the run; vlmbatch.events has the events.
        options: each option of ``vlmbatch run --help`` by its name with underscores: ``max_size=768`` is
            ``--max-size 768``. The usual ones are `prompt`, `model`, `backend`, `base_url`, `schema` (a dict,
            a text or a file), `output`, `append`, `limit`, `include`, `max_tokens` and `concurrency`.

    Raises:
        VlmbatchError: at once for a wrong option; while iterating, for an error that ends the run. The
            failure of an image is a result with `failure`, not an exception.
    """
    if config is None:
        if odd := [type(path).__name__ for path in paths if not isinstance(path, str | os.PathLike)]:
            raise TypeError(f"a path is a text or a Path, not {odd[0]}; pass several with run_batch(*paths)")
        config = RunConfig.of(*(os.fspath(p) for p in paths), **options)
    elif paths or options:
        raise TypeError("give either a config or paths and options")
    return Batch(config, observers)


class Batch:
    """A run that is ready to start: iterate over it once, with ``for`` or ``async for``.

    Each item is a Result. After the last one, `summary` says how the run ended. Leaving the loop ends the
    run, and so does stop(), which waits for the answers in flight. run_batch() makes a Batch.
    """

    def __init__(
        self,
        config: RunConfig,
        observers: "Sequence[Observer]" = (),
        *,
        stdout: bool = False,
        require_images: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """With `stdout`, records go to standard output if `config` names no output file. With
        `require_images`, PATHs that are folders without any image raise a ConfigError, unless --allow-empty.

        `sleep` waits between attempts; tests replace it, so that they do not wait.
        """
        self.config = config
        self.summary: Summary | None = None
        """How the run ended; None before that, or if the run never started."""
        self._observers = tuple(observers)
        self._stdout = stdout
        self._require_images = require_images
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin no more images and end when those in flight are written; may be called in any thread."""
        if self._loop is None:
            self._stop.set()
        else:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def __aiter__(self) -> AsyncGenerator[Result, None]:
        """Run, and yield each result once it is written."""
        if self._loop is not None:
            raise RuntimeError("a Batch runs once; make another with run_batch()")
        self._loop = asyncio.get_running_loop()
        results: asyncio.Queue[Result | None] = asyncio.Queue()

        async def deliver(result: Result) -> None:
            results.put_nowait(result)
            await results.join()  # the consumer sets the pace

        async def drive() -> None:
            outside = RunContext(
                deliver=deliver,
                notify=self._notify,
                stop=self._stop,
                stdout=self._stdout,
                require_images=self._require_images,
                sleep=self._sleep,
            )
            try:
                await run(self.config, outside)
            finally:
                results.put_nowait(None)

        driving = asyncio.create_task(drive())
        try:
            while (result := await results.get()) is not None:
                results.task_done()
                yield result
            await driving
        finally:
            driving.cancel()
            await asyncio.wait([driving])

    def __iter__(self) -> Iterator[Result]:
        """Run in a thread of its own, and yield each result once it is written.

        Leaving the loop ends the run at once; answers to requests in flight are lost.
        """
        results: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
        other: concurrent.futures.Future[_LoopThread] = concurrent.futures.Future()

        async def pump() -> None:
            here = _LoopThread()
            other.set_result(here)
            async with aclosing(aiter(self)) as found:
                async for result in found:
                    results.put(result)
                    await here.wanted.wait()  # the consumer sets the pace
                    here.wanted.clear()

        def drive() -> None:
            try:
                asyncio.run(pump())
            except BaseException as error:  # noqa: BLE001  # carried over to the thread that iterates
                results.put(error)
            else:
                results.put(None)

        thread = threading.Thread(target=drive, name="vlmbatch", daemon=True)
        thread.start()
        try:
            while (item := results.get()) is not None:
                if isinstance(item, VlmbatchError):  # its message tells all; a cell of a notebook stays short
                    raise item.with_traceback(None)
                if isinstance(item, BaseException):
                    raise item
                yield item
                other.result().call(other.result().wanted.set)
        finally:
            other.result().call(other.result().cancel)
            thread.join()

    def _notify(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.summary = event.summary
        for observer in self._observers:
            observer(event)


class _LoopThread:
    """The event loop and the task in the other thread, as the iterating thread needs them."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "made inside a task"
        self.cancel = task.cancel
        self.wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[[], object]) -> None:
        """Call it on the loop, unless that has ended by itself."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)


def open_session(
    *,
    config: RunConfig | None = None,
    observers: "Sequence[Observer]" = (),
    wait: bool = True,
    max_waiting: int = MOST_WAITING,
    **options: object,
) -> "SessionContext":
    """A session of one model, for ``async with`` in an event loop, or for ``with`` in any thread.

    ::

        with open_session(model="qwen2.5vl") as session:
            question = session.question(prompt="Describe this image")
            result = session.answer("photo.jpg", question)

    Many threads may call a session at once. In an event loop, write ``async with`` and ``await
    session.answer(...)``, and any number of tasks may call it. If an endpoint is lost, callers get an
    exception, and the session goes on trying it. Closing waits up to `drain` seconds for the requests in
    flight.

    Args:
        config: all options as one value, instead of `options`.
        observers: called with every event of the session; vlmbatch.events has the events.
        wait: whether to wait until an endpoint is up; without it, name the model.
        max_waiting: this many calls may wait to begin; for more, `Busy` is raised.
        options: the options of ``vlmbatch run --help`` by their names with underscores, without those of a
            run alone (paths, output, limits, display). The usual ones are `model`, `backend` and `base_url`.

    Raises:
        ConfigError: an option is unknown, out of range, or one of a run, such as `output`.
    """
    if config is None:
        config = RunConfig.of_session(**options)
    elif options:
        raise TypeError("give either a config or options")
    return SessionContext(config, tuple(observers), wait=wait, max_waiting=max_waiting)


class SessionContext:
    """A session that is ready to be opened: by ``async with``, or by ``with`` for a thread-safe one."""

    def __init__(
        self, config: RunConfig, observers: Sequence[Observer], *, wait: bool, max_waiting: int
    ) -> None:
        """Use open_session()."""
        self._config = config
        self._observers = observers
        self._wait = wait
        self._max_waiting = max_waiting
        self._opened: AbstractAsyncContextManager[Session] | None = None
        self._sync: SyncSession | None = None

    async def __aenter__(self) -> Session:
        self._opened = opened(self._config, self._notify, wait=self._wait, max_waiting=self._max_waiting)
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._opened is not None, "entered before"
        await self._opened.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> "SyncSession":
        self._sync = SyncSession(self)
        return self._sync.__enter__()

    def __exit__(self, *_: object) -> None:
        assert self._sync is not None, "entered before"
        self._sync.close()

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


class SyncSession:
    """A session for code without an event loop; all methods may be called in any thread, many at once.

    The session itself runs in a thread of its own. Each method is that of Session.
    """

    def __init__(self, context: SessionContext) -> None:
        """Use ``with open_session(...)``."""
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
        except BaseException:
            self.close()
            raise
        return self

    def question(self, *, schema: str | Mapping[str, Any] | None = None, **options: object) -> Question:
        """A question about images; its options are those of Session.question(), such as `prompt`."""

        async def ask() -> Question:
            return self._session.result().question(schema=schema, **options)

        return self._wait(ask())

    def answer(
        self,
        image: "GivenImage | Sequence[GivenImage]",
        question: Question,
        *,
        image_id: str | None = None,
        deadline_s: float | None = None,
        reuse: bool = True,
    ) -> Result:
        """The result for this image, or for several images in one request: Session.answer() has more."""
        session = self._session.result()
        return self._wait(
            session.answer(image, question, image_id=image_id, deadline_s=deadline_s, reuse=reuse)
        )

    def answer_many(
        self, asked: Iterable[Asked], *, deadline_s: float | None = None, reuse: bool = True
    ) -> Iterator[Result]:
        """The results for pairs of image and question, as they are ready: Session.answer_many() has more."""
        results = self._session.result().answer_many(asked, deadline_s=deadline_s, reuse=reuse)

        async def take() -> Result | None:
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
                if self._session.done():
                    raise
                self._session.set_exception(error)  # carried over to the thread that opens it

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
        except BaseException:
            future.cancel()
            raise
