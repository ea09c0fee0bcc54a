"""The Python interface: a run as something to iterate over, in an event loop or without one."""

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress

from vlmbatch.config import RunConfig
from vlmbatch.events import Event, RunFinished
from vlmbatch.protocols import Observer, Sleep
from vlmbatch.records import Result, Summary
from vlmbatch.wiring import Outside, run


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

    def stop(self) -> None:
        """Begin no more images and end when those in flight are written. Call it on the event loop."""
        self._stop.set()

    async def __aiter__(self) -> AsyncIterator[Result]:
        """Run, and yield each result once it is written."""
        results: asyncio.Queue[Result | None] = asyncio.Queue()

        async def deliver(result: Result) -> None:
            results.put_nowait(result)
            await results.join()  # the consumer sets the pace

        async def drive() -> None:
            try:
                await run(
                    self.config,
                    Outside(
                        deliver=deliver,
                        notify=self._notify,
                        stop=self._stop,
                        stdout=self._stdout,
                        sleep=self._sleep,
                    ),
                )
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
        """Run in a thread of its own, and yield each result once it is written."""
        results: queue.Queue[Result | BaseException | None] = queue.Queue(maxsize=1)
        left = threading.Event()

        async def pump() -> None:
            async for result in self:
                await asyncio.to_thread(results.put, result)
                if left.is_set():
                    return

        def drive() -> None:
            try:
                asyncio.run(pump())
            except BaseException as error:  # noqa: BLE001  # carried over to the thread that iterates
                results.put(error)
            else:
                results.put(None)

        thread = threading.Thread(target=drive, name="vlmbatch")
        thread.start()
        try:
            while (item := results.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            left.set()
            while thread.is_alive():  # it may be waiting to hand over one more result
                with suppress(queue.Empty):
                    results.get_nowait()
                thread.join(0.05)

    def _notify(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.summary = event.summary
        for observer in self._observers:
            observer(event)
