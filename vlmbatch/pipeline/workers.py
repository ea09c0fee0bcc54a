"""The story of a run: workers pull an image each, bring it to its result, and write what came."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from vlmbatch.aio import ReadAhead
from vlmbatch.errors import VlmbatchError
from vlmbatch.events import ImagesSkipped, RunStopping
from vlmbatch.images import ImageRef
from vlmbatch.protocols import Finished, Observer, Source
from vlmbatch.records import Result

REFS_AHEAD = 64
"""So many images are found before they are pulled; what is found and not pulled costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run is put together from.

    `room` is a place for one image on its way; `answer` brings it to its result, `write` puts that away.
    Once `stop` is set, the tasks that are `in_flight` have `drain_s` seconds left.
    """

    source: Source
    finished: Finished
    room: Callable[[], AbstractAsyncContextManager[None]]
    answer: Callable[[ImageRef], Awaitable[Result]]
    write: Callable[[Result], Awaitable[None]]
    notify: Observer
    stop: asyncio.Event
    drain_s: float
    in_flight: set["asyncio.Task[None] | None"]


class WorkerPool:
    """Workers pull one image each and bring it to its record."""

    def __init__(self, parts: Parts, *, workers: int, limit: int | None = None) -> None:
        """Setting `parts.stop` ends the run: what is in flight is finished if it can, nothing else is begun.

        `workers` is how many images are on their way at once at most, as far as there is room; `limit`
        how many are asked about at all.
        """
        self.parts = parts
        self.workers = workers
        self.skipped = 0
        self.failed_before = 0
        self._skipped_told = 0
        unfinished = itertools.islice(self._unfinished(), limit)
        self._refs = ReadAhead(unfinished, ahead=REFS_AHEAD, name="vlmbatch-walk")
        self._pulling = asyncio.Lock()
        self._exhausted = False
        self._begun = 0
        self._writing: set[asyncio.Task[None] | None] = set()
        self._error: VlmbatchError | None = None

    @property
    def complete(self) -> bool:
        """Whether every image of the source was brought to its result."""
        return self._exhausted and not self._begun

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
                stopper = group.create_task(self._end_early(workers))
                await asyncio.wait(workers)
                stopper.cancel()
        finally:
            self._refs.close()
        if self._error is not None:
            raise self._error

    async def _work(self) -> None:
        while not (self._exhausted or self.parts.stop.is_set()):
            async with self.parts.room():
                try:
                    ref = await self._pull()
                    if ref is None:
                        return
                    result = await self.parts.answer(ref)
                except VlmbatchError as error:
                    self._error = self._error or error
                    self.parts.stop.set()
                    return
                await self._write(result)
                self._begun -= 1

    async def _end_early(self, workers: list[asyncio.Task[None]]) -> None:
        """Once the run is to stop, let go of who has no request out, and later of who still waits for one."""
        await self.parts.stop.wait()
        self.parts.notify(RunStopping(drain_s=self.parts.drain_s, error=self._error))
        for worker in workers:
            if worker not in self.parts.in_flight:
                worker.cancel()
        await asyncio.sleep(self.parts.drain_s)
        for worker in workers:
            if worker not in self._writing:
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
            ref = await self._refs.take()
            self._exhausted = ref is None
            self._begun += ref is not None
            if (skipped := self.skipped + self.failed_before) != self._skipped_told:
                self._skipped_told = skipped
                self.parts.notify(ImagesSkipped(skipped=skipped))
            return ref

    async def _write(self, result: Result) -> None:
        task = asyncio.current_task()
        self.parts.in_flight.add(task)
        self._writing.add(task)
        try:
            await self.parts.write(result)
        finally:
            self._writing.discard(task)
            self.parts.in_flight.discard(task)
