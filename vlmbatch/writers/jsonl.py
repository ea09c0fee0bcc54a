"""Append results to a JSONL file that survives crashes and full disks, and that a later run goes on with."""

import asyncio
import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import FailureKind, OutputError, ResourceError
from vlmbatch.integer_map import IntegerMap
from vlmbatch.protocols import Finished
from vlmbatch.records import Result
from vlmbatch.writers.append import Lines, append, completed, reason
from vlmbatch.writers.lock import OutputLock
from vlmbatch.writers.lookup import Line, Recall
from vlmbatch.writers.resume import finished_by, read_contents, refuse_foreign, refuse_mixture, repair

MOVED = "somebody has moved, deleted or emptied it during the run"


class JsonlWriter:
    """One line a result, each whole or not there at all.

    After begin(), `bad_lines` is how many lines in the middle hold no record (they are skipped and stay),
    `repaired` how many bytes of a torn last line were cut off, and `kept` the file that keeps those.
    """

    def __init__(
        self,
        path: str,
        options: OutputOptions,
        *,
        again: frozenset[FailureKind] = frozenset(),
        sync_every_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What is written reaches the disk at the next write after `sync_every_s` seconds, or at exit.

        `again` are kinds of failures that count as unfinished, whatever their records say.
        """
        self.path = path
        self.bad_lines = 0
        self.repaired = 0
        self.kept: str | None = None
        self._options = options
        self._again = again
        self._sync_every_s = sync_every_s
        self._clock = clock
        self._synced_at = clock()
        self._lock = OutputLock(path)
        self._lines = Lines(self._put)
        self._recall = Recall(IntegerMap())
        self._file: AsyncFileIO | None = None
        self._size = 0
        self._created = False
        self._overwriting = False
        self._failed: OutputError | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What begin() met in the file that a person should know; see protocols.Writer."""
        told = []
        if self.repaired:
            told.append(
                f"{self.path}: the last line was torn; its {self.repaired} bytes are kept in {self.kept}"
            )
        if self.bad_lines:
            told.append(f"{self.path}: {self.bad_lines} lines hold no record; they are left as they are")
        return tuple(told)

    async def __aenter__(self) -> Self:
        """Take the lock beside the output; nothing else is created yet.

        Raises:
            ConfigError: this is somebody's other file.
            LockedError: another run writes to this file.
            OutputError: it could never be written here.
        """
        with contextlib.suppress(OSError):  # what is not there, or cannot be read, is told when it is opened
            await asyncio.to_thread(refuse_foreign, self.path)
        try:
            await completed(asyncio.to_thread(self._lock.acquire))
        except asyncio.CancelledError:
            self._lock.release()
            raise
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Bring all to the disk, close, unlock; a file that was created and got no line is removed.

        Raises:
            OutputError: the last lines may not have reached the disk.
        """
        try:
            await completed(self._lines.close(self._end))
        except OutputError:
            if exc_type is None:  # else the error that ends the run is the one to tell
                raise

    @property
    def earlier(self) -> Iterable[Mapping[str, Any]]:
        """See protocols.Writer."""
        return self._lock.runs.values()

    async def begin(self, run: str, settings: Mapping[str, Any]) -> Finished:
        """Read back what is there, repair a torn end, and open for appending.

        `settings` are JSON values by name, without secrets: what a message names when they differ.

        Raises:
            ConfigError: the file holds only records of other settings, or is none of ours.
            OutputError: it cannot be read or written.
        """
        plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        try:
            return finished_by(await completed(self._begin(run, plain)))
        except OSError as error:
            if trouble := ResourceError.behind(error):
                raise trouble from error
            raise OutputError(
                f"cannot open {self.path}: {reason(error)}. Name another file with --output"
            ) from error

    async def write(self, result: Result) -> None:
        """Append one line. May be called by many tasks at once, whose lines are written together.

        Raises:
            OutputError: it could not be written, now or earlier; the file ends at its last whole line.
        """
        if not await self._lines.add(Line.of(result)):
            raise OutputError(str(self._failed)) from self._failed

    def find(self, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """See protocols.Writer."""
        return self._recall.find(sha256, prompt)

    async def _begin(self, run: str, settings: dict[str, Any]) -> IntegerMap:
        # a link to nothing is there, too
        self._created = not await asyncio.to_thread(os.path.lexists, self.path)
        self._file = await aiofiles.open(self.path, "ab", buffering=0)
        await asyncio.to_thread(self._lock.hold, self._file.fileno())
        index = await asyncio.to_thread(self._read_back, run, settings)
        self._recall.open(self.path)
        self._size = os.fstat(self._file.fileno()).st_size
        if self._created:
            await asyncio.to_thread(_sync_folder, Path(self.path).parent)
        return index

    def _read_back(self, run: str, settings: dict[str, Any]) -> IntegerMap:
        """Settle everything about the earlier content before anything is written; blocks."""
        if self._created or self._options.overwrite:
            self._overwriting = not self._created
            self._lock.remember(self._lock.runs | {run: settings})
            return IntegerMap()
        contents = read_contents(self.path, run, retry_failed=self._options.retry_failed, again=self._again)
        if not self._options.append:
            refuse_mixture(self.path, contents, self._lock.runs, run, settings)
        self.bad_lines = contents.bad_lines
        self.kept = repair(self.path, contents)
        self.repaired = contents.tail if self.kept else 0
        self._recall = Recall(contents.answers)
        present = {known: old for known, old in self._lock.runs.items() if known in contents.runs}
        self._lock.remember(present | {run: settings})
        return contents.index

    async def _put(self, lines: list[Line]) -> int:
        """Append these lines and return how many of them are there; why not all are is in `_failed`."""
        if self._failed is not None:
            return 0
        if self._file is None:
            raise RuntimeError("begin() comes before write()")
        fd = self._file.fileno()
        try:
            if self._overwriting:  # only now: a run that gets no answer must not cost the old ones
                await asyncio.to_thread(os.ftruncate, fd, 0)
                self._overwriting, self._size = False, 0
            await append(self._file, b"".join(line.data for line in lines))
        except OSError as error:
            self._failed = self._failure(error)
            return await self._cut_back(fd, lines)
        self._stand(lines)
        try:
            if self._clock() - self._synced_at >= self._sync_every_s:
                await asyncio.to_thread(self._sync, fd)
        except OSError as error:
            self._failed = self._failure(error)
            return 0
        return len(lines)

    def _stand(self, lines: list[Line]) -> None:
        """These lines stand at the end of the file."""
        for line in lines:
            self._recall.note(line.answer, self._size)
            self._size += len(line.data)

    async def _cut_back(self, fd: int, lines: list[Line]) -> int:
        """After a write that failed in the middle: keep the lines that are whole, and say how many."""
        try:
            whole = await asyncio.to_thread(_cut, fd, self._size, [line.data for line in lines])
        except OSError:  # where even this fails, the next run repairs the end
            return 0
        self._stand(lines[:whole])
        return whole

    def _sync(self, fd: int) -> None:
        os.fsync(fd)
        self._synced_at = self._clock()
        here, output = os.fstat(fd), Path(self.path)
        if not output.exists() or not os.path.samestat(here, output.stat()) or here.st_size < self._size:
            raise FileNotFoundError(errno.ENOENT, MOVED)

    async def _end(self) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                await self._close_file(file)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._lock.release()

    async def _close_file(self, file: AsyncFileIO) -> None:
        try:
            if self._size and self._failed is None:
                await asyncio.to_thread(self._sync, file.fileno())
        finally:
            if self._created and not self._size:
                await asyncio.to_thread(_remove_empty, self.path, file.fileno())
            self._recall.close()
            await file.close()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write to {self.path}: {reason(error)}. "
            "The lines in it are whole; once that is mended, run the same command again to go on"
        )


def _remove_empty(path: str, fd: int) -> None:
    """Remove the file that this process has made, if it still is that one and still holds nothing."""
    with contextlib.suppress(OSError):
        here = os.fstat(fd)
        if here.st_size == 0 and os.path.samestat(here, os.lstat(path)):
            os.unlink(path)  # noqa: PTH108  # beside the calls above


def _cut(fd: int, size: int, lines: list[bytes]) -> int:
    """Cut the file back to the last of these lines that is whole behind `size`; how many are.

    It never gets longer, since somebody may have emptied it.
    """
    found, whole = os.fstat(fd).st_size, 0
    for line in lines:
        if size + len(line) > found:
            break
        size += len(line)
        whole += 1
    os.ftruncate(fd, min(size, found))
    return whole


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file last; some file systems cannot sync a folder, and need not."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
