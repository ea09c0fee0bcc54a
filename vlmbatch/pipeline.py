"""The story of a run: workers pull an image each, bring it to its result, and write what came."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from vlmbatch.errors import VlmbatchError
from vlmbatch.events import ImagesSkipped
from vlmbatch.protocols import Finished, Observer, Source
from vlmbatch.records import ImageRef, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run is put together from.

    `room` is a place for one image on its way; `answer` brings it to its result, `write` puts that away.
    """

    source: Source
    finished: Finished
    room: Callable[[], AbstractAsyncContextManager[None]]
    answer: Callable[[ImageRef], Awaitable[Result]]
    write: Callable[[Result], Awaitable[None]]
    notify: Observer
    stop: asyncio.Event
    in_flight: set["asyncio.Task[None] | None"]


class Pipeline:
    """Workers pull one image each and bring it to its record."""

    def __init__(self, parts: Parts, *, workers: int, limit: int | None = None) -> None:
        """Setting `parts.stop` ends the run: what is in flight is finished, nothing else is begun.

        `workers` is how many images are on their way at once at most, as far as there is room; `limit`
        how many are asked about at all.
        """
        self.parts = parts
        self.workers = workers
        self.skipped = 0
        self.failed_before = 0
        self._refs: Iterator[ImageRef] = itertools.islice(self._unfinished(), limit)
        self._pulling = asyncio.Lock()
        self._exhausted = False
        self._error: VlmbatchError | None = None
        self._walker = ThreadPoolExecutor(1, "vlmbatch-walk")

    async def run(self) -> None:
        """Work until the source is exhausted or `stop` is set.

        An endpoint that ends the run is a stop with an error: answers that are on their way are written
        first. An output that ends the run ends it at once.

        Raises:
            VlmbatchError: what ends the whole run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self.workers)]
                stopper = group.create_task(self._stop_idle(workers))
                await asyncio.wait(workers)
                stopper.cancel()
        finally:
            self._walker.shutdown(wait=False, cancel_futures=True)
        if self._error is not None:
            raise self._error

    async def _work(self) -> None:
        while not (self._exhausted or self.parts.stop.is_set()):
            async with self.parts.room():
                ref = await self._pull()
                if ref is None:
                    return
                try:
                    result = await self.parts.answer(ref)
                except VlmbatchError as error:
                    self._error = self._error or error
                    self.parts.stop.set()
                    return
                await self._write(result)

    async def _stop_idle(self, workers: list[asyncio.Task[None]]) -> None:
        await self.parts.stop.wait()
        for worker in workers:
            if worker not in self.parts.in_flight:
                worker.cancel()

    def _unfinished(self) -> Iterator[ImageRef]:
        source = self.parts.source
        for ref in source:
            done = self.parts.finished(ref, partial(source.stamp, ref))
            if done is None:
                yield ref
            elif done:
                self.skipped += 1
            else:
                self.failed_before += 1

    async def _pull(self) -> ImageRef | None:
        """The next image that has to be asked about; walking and skipping happen in a thread."""
        async with self._pulling:
            if self._exhausted:
                return None
            before = self.skipped + self.failed_before
            ref = await asyncio.get_running_loop().run_in_executor(self._walker, next, self._refs, None)
            self._exhausted = ref is None
            if (skipped := self.skipped + self.failed_before) != before:
                self.parts.notify(ImagesSkipped(skipped=skipped))
            return ref

    async def _write(self, result: Result) -> None:
        task = asyncio.current_task()
        self.parts.in_flight.add(task)
        try:
            await self.parts.write(result)
        finally:
            self.parts.in_flight.discard(task)
