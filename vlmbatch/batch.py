"""The Python interface: a run as something to iterate over, in an event loop or without one."""

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress

from vlmbatch.config import RunConfig
from vlmbatch.events import Event, RunFinished
from vlmbatch.pipeline.runner import RunContext, run
from vlmbatch.protocols import Observer, Sleep
from vlmbatch.records import Result, Summary


def run_batch(
    *paths: str | os.PathLike[str],
    config: RunConfig | None = None,
    observers: Sequence[Observer] = (),
    **options: object,
) -> "Batch":
    """Ask a vision model about every image below `paths`; iterate over what this returns.

    ``for result in run_batch("photos", prompt="Describe this image", model="llava:7b"): ...``, or with
    ``async for`` inside an event loop. Results come as they are ready. With ``output="captions.jsonl"``
    they are appended there too, and what the file has already is skipped.

    Args:
        paths: folders or files, as on the command line.
        config: all options as one value, instead of `paths` and `options`.
        observers: called with every event of the run.
        options: options by their flag's name with underscores, for example ``max_size=768``.

    Raises:
        VlmbatchError: at once for a wrong option; while iterating for what ends a whole run. The failure
            of an image raises nothing: it is a result with `failure`.
    """
    if config is None:
        config = RunConfig.of(*(os.fspath(p) for p in paths), **options)
    elif paths or options:
        raise TypeError("give either a config or paths and options")
    return Batch(config, observers)


class Batch:
    """A run that is ready to start: iterate over it once, with ``for`` or ``async for``."""

    def __init__(
        self,
        config: RunConfig,
        observers: Sequence[Observer] = (),
        *,
        stdout: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`stdout` writes records to standard output where `config` names no output file.

        `sleep` is how to wait between attempts, for tests that must not.
        """
        self.config = config
        self.summary: Summary | None = None
        """How the run ended; None until then, and where it never started."""
        self._observers = tuple(observers)
        self._stdout = stdout
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

        Leaving the loop ends the run; what is being answered at that moment is dropped.
        """
        results: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
        other: concurrent.futures.Future[_Other] = concurrent.futures.Future()

        async def pump() -> None:
            here = _Other()
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


class _Other:
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
