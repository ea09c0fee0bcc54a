"""The workers of a run: each takes an image, brings it to its result, and hands that to the sink."""

import asyncio
import itertools
from collections.abc import Iterator

from vlmbatch.aio import ReadAhead, first
from vlmbatch.errors import VlmbatchError
from vlmbatch.events import ImagesSkipped, RunStopping
from vlmbatch.images import ImageRef
from vlmbatch.pipeline.processor import ImageProcessor
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.sink import ResultSink
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Observer, Source
from vlmbatch.records import Result

REFS_AHEAD = 64
"""This many images are found before workers take them; a reference that no worker takes costs nothing."""


class WorkerPool:
    """Workers that bring the images of a source to their records."""

    def __init__(
        self,
        *,
        source: Source,
        question: Question,
        processor: ImageProcessor,
        sink: ResultSink,
        notify: Observer,
        stop: asyncio.Event,
        drain_s: float,
        workers: int,
        limit: int | None = None,
    ) -> None:
        """Setting `stop` ends the run: no image is begun, and tasks in flight have `drain_s` seconds left.

        At most `workers` images are on their way at once, and no more than the endpoint pool has rooms.
        `limit` is the largest number of images that the run processes.
        """
        self.skipped = 0
        self.failed_before = 0
        self._source = source
        self._question = question
        self._processor = processor
        self._sink = sink
        self._notify = notify
        self._stop = stop
        self._drain_s = drain_s
        self._workers = workers
        self._skipped_told = 0
        unfinished = itertools.islice(self._unfinished(), limit)
        self._refs = ReadAhead(unfinished, ahead=REFS_AHEAD, name="vlmbatch-walk")
        self.walk_rested = self._refs.rested
        self._pulling = asyncio.Lock()
        self._exhausted = False
        self._begun = 0
        self._writing: set[asyncio.Task[object] | None] = set()
        self._error: VlmbatchError | None = None

    @property
    def complete(self) -> bool:
        """Whether every image of the source, up to the limit, was brought to its result."""
        return self._exhausted and not self._begun

    async def run(self) -> None:
        """Work until the source is exhausted or `stop` is set.

        An error of the endpoints ends the run after the answers in flight are written. A writing error ends
        it at once.

        Raises:
            VlmbatchError: the error that ends the run.
        """
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(self._workers)]
                stopper = group.create_task(self._end_early(workers))
                await asyncio.wait(workers)
                stopper.cancel()
        except BaseExceptionGroup as error:
            raise first(error) from error
        finally:
            self._refs.close()
        if self._error is not None:
            raise self._error

    async def _work(self) -> None:
        while not (self._exhausted or self._stop.is_set()):
            async with self._processor.pool.room():
                try:
                    image = await self._next_image()
                    if image is None:
                        return
                    task = ImageTask((image,), self._source, self._question)
                    result = await self._processor.process(task)
                except VlmbatchError as error:
                    self._error = self._error or error
                    self._stop.set()
                    return
                self._notify(task.steps.traced(task.id, result))
                await self._write(result)
                self._begun -= 1

    async def _end_early(self, workers: list[asyncio.Task[None]]) -> None:
        """Once `stop` is set, cancel workers without a request; after the drain, those without an answer."""
        await self._stop.wait()
        self._notify(RunStopping(drain_s=self._drain_s, error=self._error))
        for worker in workers:
            if worker not in self._processor.in_flight:
                worker.cancel()
        await asyncio.sleep(self._drain_s)
        for worker in workers:
            if worker not in self._writing:
                worker.cancel()

    def _unfinished(self) -> Iterator[ImageRef]:
        """The images that no earlier run has finished; runs in a thread."""
        for image in self._source:
            done = self._sink.finished(image, self._source.version)
            if done is None:
                yield image
            elif done:
                self.skipped += 1
            else:
                self.failed_before += 1

    async def _next_image(self) -> ImageRef | None:
        """The next image to process; a thread walks the source and skips finished images."""
        async with self._pulling:
            if self._exhausted:
                return None
            image = await self._refs.take()
            self._exhausted = image is None
            self._begun += image is not None
            if (skipped := self.skipped + self.failed_before) != self._skipped_told:
                self._skipped_told = skipped
                self._notify(ImagesSkipped(skipped=skipped))
            return image

    async def _write(self, result: Result) -> None:
        task = asyncio.current_task()
        self._processor.in_flight.add(task)
        self._writing.add(task)
        try:
            await self._sink.take(result)
        finally:
            self._writing.discard(task)
            self._processor.in_flight.discard(task)
