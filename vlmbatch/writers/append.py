"""Writes whole lines to an open file from the event loop; works on bytes and does not use records."""

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
    errno.EBADF: "the stream is closed",
}


def reason(error: OSError) -> str:
    """The reason in plain words."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error)


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; a cancellation takes effect only after the work has ended.

    A thread cannot be interrupted. Without this, a cancelled caller would release its lock while the thread
    is still in the middle of a line.
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
    """Collects the lines of many tasks: one task at a time writes all waiting lines, also of other tasks.

    The hand-over of a line to a thread and back costs more than all other work on it.
    """

    def __init__(self, put: Callable[[list[L]], Coroutine[Any, Any, int]]) -> None:
        """`put` writes whole lines and returns how many of them, from the first on, were written."""
        self._put = put
        self._turn = asyncio.Lock()
        self._waiting: list[_Waiting[L]] = []

    async def add(self, line: L) -> bool:
        """Wait for the write of this line; returns whether it was written.

        A line whose task is cancelled before its turn is not written.
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
        return mine.is_written

    async def alone(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work when no line is being written."""
        async with self._turn:
            await work()

    async def _put_all(self) -> None:
        together, self._waiting = self._waiting, []
        written = await self._put([each.line for each in together])
        for each in together[:written]:
            each.is_written = True


@dataclass(slots=True, eq=False)
class _Waiting(Generic[L]):
    """A line, and whether it has been written."""

    line: L
    is_written: bool = False


async def append(file: AsyncFileIO, line: bytes) -> None:
    """Write all of `line` to an unbuffered file: one write, and more only if the system accepts a part.

    Raises:
        OSError: the write failed; a part of the line may be in the file.
    """
    rest = line
    while rest:
        written: int | None = await file.write(rest)
        if written is None:  # a full pipe that another program has set to non-blocking
            await asyncio.to_thread(select.select, [], [file.fileno()], [])
        else:
            rest = rest[written:]
