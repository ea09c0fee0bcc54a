"""Put whole lines into an open file from the event loop; knows aiofiles and errno, not what a record is."""

import asyncio
import errno
import select
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiofiles.threadpool.binary import AsyncFileIO

T = TypeVar("T")
L = TypeVar("L")

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on the size of a file is reached (see ulimit -f)",
    errno.EROFS: "the disk is mounted read-only",
    errno.EACCES: "permission denied",
    errno.EBADF: "it is closed",
}


def reason(error: OSError) -> str:
    """Why, in plain words."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error)


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; a cancellation takes effect only once the work has ended.

    A thread cannot be interrupted. Without this a cancelled caller would let go of its lock while the
    thread is still in the middle of a line.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


class Lines(Generic[L]):
    """Lines of many tasks: one task at a time puts away all that have come, also for those who wait.

    To hand a line to a thread and to hear of it costs more than all else that is done with it.
    """

    def __init__(self, put: Callable[[list[L]], Coroutine[Any, Any, int]]) -> None:
        """`put` writes whole lines and returns how many of them, from the first on, are there."""
        self._put = put
        self._turn = asyncio.Lock()
        self._waiting: list[_Waiting[L]] = []

    async def add(self, line: L) -> bool:
        """Return once this line was put away, and whether it is there.

        A line whose task is cancelled before its turn is not.
        """
        mine = _Waiting(line)
        self._waiting.append(mine)
        try:
            async with self._turn:
                if mine in self._waiting:
                    await completed(self._put_all())
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        return mine.is_there

    async def close(self, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do this when no line is being put away."""
        async with self._turn:
            await end()

    async def _put_all(self) -> None:
        together, self._waiting = self._waiting, []
        there = await self._put([each.line for each in together])
        for each in together[:there]:
            each.is_there = True


@dataclass(slots=True, eq=False)
class _Waiting(Generic[L]):
    """A line, and whether it has been written."""

    line: L
    is_there: bool = False


async def append(file: AsyncFileIO, line: bytes) -> None:
    """Write all of `line` to an unbuffered file: one write, and more only where the system takes a part.

    Raises:
        OSError: no more can be written; a part of the line may be in the file.
    """
    rest = line
    while rest:
        written: int | None = await file.write(rest)
        if written is None:  # a full pipe that another program has made non-blocking
            await asyncio.to_thread(select.select, [], [file.fileno()], [])
        else:
            rest = rest[written:]
