"""Appends results to a JSONL file that survives crashes and full disks, and that a later run continues."""

import asyncio
import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from vlmbatch.config.masking import without_secrets
from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import FailureKind, OutputError, ResourceError, VlmbatchError
from vlmbatch.integer_map import IntegerMap
from vlmbatch.protocols import Finished
from vlmbatch.records import Result
from vlmbatch.writers.append import Lines, append, completed, reason
from vlmbatch.writers.lock import OutputLock
from vlmbatch.writers.lookup import AnswerIndex, Line
from vlmbatch.writers.resume import finished_by, read_contents, refuse_foreign, refuse_mixture, repair
from vlmbatch.writers.run_log import RunLog, sync_folder

MOVED = "the file was moved, deleted or emptied during the run"


class JsonlWriter:
    """Writes one line for each result, whole or not at all.

    After begin(), `bad_lines` is the number of lines in the middle without a record (they are skipped and
    stay), `repaired` the number of bytes of an incomplete last line that were cut off, and `kept` the file
    that they were moved to.
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
        """Lines are synced to disk at the next write after `sync_every_s` seconds, and at exit.

        `again` are kinds of failures that count as unfinished, even if their records say otherwise.
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
        self._log = RunLog(path)
        self._run = ""
        self._settings: dict[str, Any] = {}
        self._is_described = False
        self._lines = Lines(self._put)
        self._answers = AnswerIndex()
        self._file: AsyncFileIO | None = None
        self._size = 0
        self._created = False
        self._overwriting = False
        self._failed: OutputError | ResourceError | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """Problems that begin() found in the file; see protocols.Writer."""
        found = list(self._lock.notices)
        if self.repaired:
            found.append(
                f"{self.path}: the last line was incomplete; "
                f"its {self.repaired} bytes were moved to {self.kept}"
            )
        if self.bad_lines:
            found.append(f"{self.path}: {self.bad_lines} lines hold no record; they are left unchanged")
        if self._log.bad_lines:
            found.append(
                f"{self._log.path}: {self._log.bad_lines} lines describe no run; they are left unchanged"
            )
        return tuple(found)

    async def __aenter__(self) -> Self:
        """Take the lock of the output; nothing but the lock file is created yet.

        Raises:
            ConfigError: the file, or FILE.runs next to it, does not belong to vlmbatch.
            LockedError: another run writes to this file.
            OutputError: the file can never be written here.
        """
        with contextlib.suppress(OSError):  # a missing or unreadable file is reported when it is opened
            await asyncio.to_thread(refuse_foreign, self.path)
        try:
            await completed(asyncio.to_thread(self._lock.acquire))
            await completed(asyncio.to_thread(self._log.open))
        except (asyncio.CancelledError, VlmbatchError):
            self._release()
            raise
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Sync to disk, close and unlock; a file that was created and got no line is removed.

        Raises:
            OutputError: the last lines may not have reached the disk.
        """
        try:
            await completed(self._lines.alone(self._end))
        except (OutputError, ResourceError):
            if exc_type is None:  # otherwise the error that ends the run is the one to report
                raise

    @property
    def earlier(self) -> Mapping[str, Mapping[str, Any]]:
        """See protocols.Writer."""
        return self._lock.runs | self._log.runs

    async def begin(self, run: str, settings: Mapping[str, Any]) -> Finished:
        """Read the file back, repair an incomplete end, and open it for appending.

        `settings` are JSON values by name; a message names those that differ.

        Raises:
            ConfigError: the file holds only records of other settings, or does not belong to vlmbatch.
            OutputError: the file cannot be read or written.
        """
        self._run, self._settings = run, without_secrets(json.loads(json.dumps(dict(settings))))
        try:
            return finished_by(await completed(self._begin()))
        except OSError as error:
            if trouble := ResourceError.behind(error):
                raise trouble from error
            raise OutputError(
                f"cannot open {self.path}: {reason(error)}; name another file with --output"
            ) from error

    async def write(self, result: Result) -> None:
        """Append one line. Many tasks may call it at once; their lines are written together.

        Raises:
            OutputError: this or an earlier write failed; the file ends at its last whole line.
            ResourceError: the same, since the machine is out of descriptors or memory.
        """
        if not await self._lines.add(Line.of(result)):
            assert self._failed is not None, "a line is missing for a reason"
            raise type(self._failed)(str(self._failed)) from self._failed

    async def sync(self) -> None:
        """Sync all lines to disk now.

        Raises:
            OutputError: the last lines may not have reached the disk; the same for each later write.
        """
        await completed(self._lines.alone(self._sync_now))

    def find(self, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """See protocols.Writer."""
        return self._answers.find(sha256, prompt)

    async def _begin(self) -> IntegerMap:
        # a dangling link counts as existing
        self._created = not await asyncio.to_thread(os.path.lexists, self.path)
        self._file = await aiofiles.open(self.path, "ab", buffering=0)
        await asyncio.to_thread(self._lock.hold, self._file.fileno())
        index = await asyncio.to_thread(self._read_back)
        self._answers.open(self.path)
        self._size = os.fstat(self._file.fileno()).st_size
        if self._created:
            await asyncio.to_thread(sync_folder, Path(self.path).parent)
        return index

    def _read_back(self) -> IntegerMap:
        """Handle the earlier content before anything is written; blocks."""
        run = self._run
        if self._created or self._options.overwrite:
            self._overwriting = not self._created
            self._log.require_writable()
            return IntegerMap()
        contents = read_contents(self.path, run, retry_failed=self._options.retry_failed, again=self._again)
        if not self._options.append:
            refuse_mixture(self.path, contents, self.earlier, run, self._settings)
        self.bad_lines = contents.bad_lines
        self.kept = repair(self.path, contents)
        self.repaired = contents.tail if self.kept else 0
        self._answers = AnswerIndex(contents.answers)
        if contents.runs:
            self._describe_runs()
        else:
            self._log.require_writable()
        return contents.index

    def _describe_runs(self) -> None:
        """Write the settings of this run to FILE.runs, before its first record; blocks, raises OSError."""
        if self._overwriting:
            self._log.start_anew(self._run, self._settings, self._lock.started)
        else:
            self._log.add(self._lock.runs, None)
            self._log.add({self._run: self._settings}, self._lock.started)
        self._lock.forget_runs()
        self._is_described = True

    async def _put(self, lines: list[Line]) -> int:
        """Append these lines and return how many were written; `_failed` holds the reason if not all were."""
        if self._failed is not None:
            return 0
        if self._file is None:
            raise RuntimeError("begin() comes before write()")
        fd = self._file.fileno()
        try:
            if not self._is_described:
                await asyncio.to_thread(self._prepare_first_line, fd)
            await append(self._file, b"".join(line.data for line in lines))
        except OSError as error:
            self._failed = self._failure(error)
            return await self._cut_back(fd, lines)
        self._note(lines)
        try:
            if self._clock() - self._synced_at >= self._sync_every_s:
                await asyncio.to_thread(self._sync, fd)
        except OSError as error:
            self._failed = self._failure(error)
            return 0
        return len(lines)

    def _prepare_first_line(self, fd: int) -> None:
        """Delete the old records only now, since a run without an answer must keep them; blocks."""
        if self._overwriting:
            os.ftruncate(fd, 0)
            os.fsync(fd)  # no old record may remain without its settings
            self._size = 0
        self._describe_runs()
        self._overwriting = False

    def _note(self, lines: list[Line]) -> None:
        """Note the place of lines that were appended to the file."""
        for line in lines:
            self._answers.note(line.answer, self._size)
            self._size += len(line.data)

    async def _cut_back(self, fd: int, lines: list[Line]) -> int:
        """Cut the file after its last whole line, since a write failed; returns how many lines are whole."""
        try:
            whole = await asyncio.to_thread(_cut, fd, self._size, [line.data for line in lines])
        except OSError:  # if even this fails, the next run repairs the end
            return 0
        self._note(lines[:whole])
        return whole

    def _sync(self, fd: int) -> None:
        os.fsync(fd)
        self._synced_at = self._clock()
        here, output = os.fstat(fd), Path(self.path)
        if not output.exists() or not os.path.samestat(here, output.stat()) or here.st_size < self._size:
            raise FileNotFoundError(errno.ENOENT, MOVED)

    async def _sync_now(self) -> None:
        if self._file is None or not self._size:
            return
        if self._failed is None:
            try:
                await asyncio.to_thread(self._sync, self._file.fileno())
            except OSError as error:
                self._failed = self._failure(error)
        if self._failed is not None:
            raise type(self._failed)(str(self._failed)) from self._failed

    async def _end(self) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                await self._close_file(file)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._release()

    def _release(self) -> None:
        self._log.close()
        self._lock.release()

    async def _close_file(self, file: AsyncFileIO) -> None:
        try:
            if self._size and self._failed is None:
                await asyncio.to_thread(self._sync, file.fileno())
        finally:
            here = os.fstat(file.fileno())
            self._answers.close()
            await file.close()
            if self._created and not self._size:  # Windows removes no file that is open
                await asyncio.to_thread(_remove_empty, self.path, here)

    def _failure(self, error: OSError) -> OutputError | ResourceError:
        return ResourceError.behind(error) or OutputError(
            f"cannot write to {self.path}: {reason(error)}; "
            "all lines in it are complete; correct the cause, and run the same command again to continue"
        )


def _remove_empty(path: str, created: os.stat_result) -> None:
    """Remove the file that this process has created, if it is still the same file and still empty."""
    with contextlib.suppress(OSError):
        here = os.lstat(path)
        if here.st_size == 0 and os.path.samestat(here, created):
            os.unlink(path)  # noqa: PTH108  # like the calls above


def _cut(fd: int, size: int, lines: list[bytes]) -> int:
    """Cut the file after the last whole line of these, which begin at `size`; returns how many are whole.

    The file never gets longer, since another program may have emptied it.
    """
    found, whole = os.fstat(fd).st_size, 0
    for line in lines:
        if size + len(line) > found:
            break
        size += len(line)
        whole += 1
    os.ftruncate(fd, min(size, found))
    return whole
