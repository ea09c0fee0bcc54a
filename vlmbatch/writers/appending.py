"""Put whole lines into an open file from the event loop; knows aiofiles and errno, not what a record is."""

import asyncio
import errno
import select
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiofiles.threadpool.binary import AsyncFileIO

T = TypeVar("T")

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
