"""Gets one picture ready to be sent, or finds that its answer is known; knows no decoder and no endpoint."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from vlmbatch.config import RunConfig
from vlmbatch.config.groups import USUAL_SIDE
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import ImageError
from vlmbatch.events import Notice, tell
from vlmbatch.images import PreparedImage, SourceImage
from vlmbatch.imaging.memory import DecodeMemory
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.sizing import Sizing, sizing_of
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Deduplicator, Observer, Room, Source, Turn
from vlmbatch.records import DEFAULT_PROMPT_NAME, Answered, Endpoint

T = TypeVar("T")

SLOW_S = 60.0


class SlowWatch:
    """Inside its ``with`` block, says once which image a thread has worked on for very long.

    Its disk or its decoder may hang, and nothing else would tell which of many it is.
    """

    def __init__(self, image: str, notify: Observer, *, slow_s: float = SLOW_S) -> None:
        """`began`, in monotonic seconds, is set by the thread when it begins."""
        self.began: float | None = None
        self._image = image
        self._notify = notify
        self._slow_s = slow_s

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._slow_s, self._look)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._slow_s if self.began is None else self.began + self._slow_s - time.monotonic()
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._look)
        else:
            told = f"still being read and decoded after {self._slow_s:g} s; --exclude leaves it out"
            self._notify(Notice(message=f"{self._image}: {told}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparer:
    """Reads and prepares in `threads`; many images at once.

    `prepare` turns file bytes into a picture whose longest side is at most the given number of pixels, or
    what the options say where that is None; it blocks, as reading does, for whose bytes `room_to_read` waits.
    """

    source: Source
    room_to_read: Room
    prepare: Callable[[bytes, int | None], PreparedImage]
    answers: Deduplicator
    threads: ThreadPoolExecutor
    notify: Observer

    async def look(self, draft: ImageTask) -> Answered | None:
        """The answer, where the same was asked before; else None, and the draft has its picture.

        Waits while somebody else asks about the same. Until `answers.release`, the draft holds its question.

        Raises:
            ImageError: it cannot be read or decoded.
            ResourceError: the machine is out of something.
        """
        found: Answered | PreparedImage | Turn
        while (found := await self._in_thread(draft, self._look)) is Turn.WAIT and draft.key is not None:
            await self.answers.settled(draft.key)
        if isinstance(found, Answered):
            return found
        if isinstance(found, PreparedImage):
            draft.picture(found)
        return None

    async def shrink(self, draft: ImageTask, longest: int) -> None:
        """Prepare the picture anew, its longest side at most so many pixels; raises as look() does."""

        def smaller(draft: ImageTask) -> PreparedImage:
            with self.room_to_read(self._stamp(draft)):
                return self.prepare(self._read(draft).data, longest)

        draft.picture(await self._in_thread(draft, smaller))

    def _look(self, draft: ImageTask) -> Answered | PreparedImage | Turn:
        """The picture, unless its answer is known or somebody else asks about the same; blocks."""
        if draft.key is not None:  # who was waited for has ended
            turn = self.answers.look(draft.key, draft)
            if turn is not Turn.ASK:
                return turn
        with self.room_to_read(self._stamp(draft)):
            image = self._read(draft)
            if draft.key is None:
                draft.key = (image.sha256, draft.ref.prompt or DEFAULT_PROMPT_NAME)
                turn = self.answers.look(draft.key, draft)
                if turn is not Turn.ASK:
                    return turn
            picture = self.prepare(image.data, None)
            return replace(picture, file=draft.ref.uri) if picture.is_original else picture

    def _stamp(self, draft: ImageTask) -> int:
        """How many bytes there will be to read."""
        draft.stamp = self.source.stamp(draft.ref)
        return draft.stamp.bytes if draft.stamp else 0

    def _read(self, draft: ImageTask) -> SourceImage:
        image = self.source.read(draft.ref)
        draft.stamp, draft.sha256 = image.stamp, image.sha256
        return image

    async def _in_thread(self, draft: ImageTask, work: Callable[[ImageTask], T]) -> T:
        watch = SlowWatch(draft.ref.id, self.notify)

        def watched() -> T:
            watch.began = time.monotonic()
            return work(draft)

        with watch:
            return await asyncio.get_running_loop().run_in_executor(self.threads, watched)


def sizing_for(config: RunConfig, endpoint: Endpoint, notify: Observer) -> Sizing:
    """Which sizes pictures are sent in to this model; what a person should know of that is told.

    Raises:
        ConfigError: --image-tokens, and nobody knows how this model counts them.
    """
    sizing = sizing_of(config.image, endpoint.model, endpoint.architecture)
    budget, least = config.image.image_tokens, sizing.least_tokens
    if config.image.max_size == AUTO and sizing.family is None:
        tell(
            notify,
            f"how {endpoint.model} counts the tokens of pictures is not known: --max-size auto is "
            f"{USUAL_SIDE} for it (docs/image-tokens.md)",
        )
    if budget is not None and least > budget:
        at_least = f"a photo costs {endpoint.model} at least {least} tokens"
        tell(notify, f"{at_least}, more than --image-tokens {budget}")
    return sizing


def preparer_of(
    config: RunConfig, sizing: Sizing, memory: DecodeMemory
) -> Callable[[bytes, int | None], PreparedImage]:
    """What prepares pictures as the options say, at most so large, in bounded memory; for many threads."""

    def prepared(data: bytes, longest: int | None) -> PreparedImage:
        fit = sizing if longest is None else sizing.at_most(longest)
        try:
            return prepare(data, config.image, memory.room, fit)
        except ImageError:  # decoders have many words for a lack of memory
            memory.prove()
            raise

    return prepared
