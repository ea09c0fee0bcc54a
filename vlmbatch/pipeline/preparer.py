"""Prepares the pictures of a task in a thread, or finds that its answer is known."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from vlmbatch.aio import Unawaited
from vlmbatch.endpoints.picture_limits import PictureLimits
from vlmbatch.errors import ImageError
from vlmbatch.images import PreparedImage, SourceImage
from vlmbatch.imaging.fitting import marked
from vlmbatch.imaging.memory import FILES_SHARE, DecodeMemory
from vlmbatch.imaging.prepare import prepare
from vlmbatch.pipeline.dedup import Deduplicator, Turn
from vlmbatch.pipeline.question import Question
from vlmbatch.pipeline.slow_watch import SlowWatch
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Observer
from vlmbatch.records import Answered

T = TypeVar("T")


class Preparer:
    """Reads and prepares the images of many tasks at once, in `threads` and in bounded memory."""

    def __init__(
        self,
        *,
        memory: DecodeMemory,
        max_bytes: int,
        dedup: Deduplicator,
        threads: Unawaited,
        limits: PictureLimits,
        notify: Observer,
    ) -> None:
        """A file of more than `max_bytes` is refused when it is read, so it needs no more room than that."""
        self._memory = memory
        self._files = memory.part(FILES_SHARE)
        self._max_bytes = max_bytes
        self._dedup = dedup
        self._threads = threads
        self._limits = limits
        self._notify = notify

    async def prepare(self, task: ImageTask) -> Answered | None:
        """A stored answer to the same question. Else None: the task has its pictures, and holds the question
        until `Deduplicator.release`.

        Waits while another task has begun with the same question.

        Raises:
            ImageError: an image cannot be read or decoded.
            ResourceError: the machine is out of descriptors or memory.
        """
        found: Answered | list[PreparedImage] | Turn
        while (found := await self._in_thread(task, self._read_or_reuse)) is Turn.WAIT:
            assert task.key is not None, "a task without a key does not wait"
            task.steps.begin("wait")
            await self._dedup.settled(task.key)
        if isinstance(found, Answered):
            return found
        if isinstance(found, list):
            task.set_pictures(found)
        return None

    async def shrink(self, task: ImageTask, pixels: int) -> None:
        """Prepare the pictures again, with at most `pixels` together; raises as prepare() does."""

        def smaller(task: ImageTask) -> list[PreparedImage]:
            with self._room_to_read(task):
                return self._pictures(task.question, self._read(task), pixels)

        task.set_pictures(await self._in_thread(task, smaller))

    def _read_or_reuse(self, task: ImageTask) -> Answered | list[PreparedImage] | Turn:
        """The pictures, unless the answer is stored or another task has sent the request; blocks."""
        turn = self._turn(task)  # the task that this one waited for may have ended
        if turn is not Turn.SEND:
            return turn
        with self._room_to_read(task):
            is_first, images = task.key is None, self._read(task)
            if is_first:
                turn = self._turn(task)
                if turn is not Turn.SEND:
                    return turn
            limit = self._limits.everywhere(task.question.run)
            pictures = self._pictures(task.question, images, limit)
            files = zip(pictures, task.images, strict=True)  # for a server that reads the file itself
            return [replace(p, file=ref.uri or None) if p.is_original else p for p, ref in files]

    def _turn(self, task: ImageTask) -> Answered | Turn:
        if task.key is None or not task.reuse:
            return Turn.SEND
        return self._dedup.look(task.key, task, task.question.answer_schema)

    def _room_to_read(self, task: ImageTask) -> AbstractContextManager[None]:
        """Room in memory for the files of the task; blocks until it is free."""
        task.stamps = [task.source.stamp(image) for image in task.images]
        sizes = (min(stamp.bytes, self._max_bytes) for stamp in task.stamps if stamp)
        return self._files.room(sum(sizes))

    def _read(self, task: ImageTask) -> list[SourceImage]:
        images = [task.source.read(image) for image in task.images]
        task.set_content(images)
        return images

    def _pictures(
        self, question: Question, images: list[SourceImage], pixels: int | None
    ) -> list[PreparedImage]:
        each = None if pixels is None else pixels // len(images)
        return [self.picture(question, image, each) for image in images]

    def picture(self, question: Question, image: SourceImage, pixels: int | None) -> PreparedImage:
        """One picture, in the size that the question says, but with at most `pixels`; blocks.

        Raises:
            ImageError: it cannot be decoded.
            ResourceError: the machine is out of memory.
        """
        sizing = question.sizing if pixels is None else question.sizing.within(pixels)
        try:
            return marked(prepare(image.data, question.image, self._memory.room, sizing), question.sizing)
        except ImageError:  # many errors of decoders really mean that memory is out
            self._memory.prove()
            raise

    async def _in_thread(self, task: ImageTask, work: Callable[[ImageTask], T]) -> T:
        """The result of `work` in a thread; a cancelled task releases its question when `work` ends."""
        task.steps.begin("prepare")
        watch = SlowWatch(task.id, self._notify)

        def watched() -> T:
            watch.began = time.monotonic()
            return work(task)

        with watch:
            return await self._threads.call(watched, partial(self._dedup.release, task, None))
