"""Allows one run at a time to write to an output file.

The lock file is next to the output: a lock on the output itself would be lost if the output is moved. A run
removes the lock file only if this run has made it and the output has no line. Another run may have opened
the removed file. So each run checks, once it has the lock, that the path still leads to its file: otherwise
two runs could hold two lock files of one name.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmbatch import strict_json, system
from vlmbatch.config.masking import without_secrets
from vlmbatch.errors import ConfigError, LockedError, OutputError, ResourceError
from vlmbatch.writers.append import reason
from vlmbatch.writers.beside import WAY_OUT, is_empty, leads_to, open_beside, remove
from vlmbatch.writers.holder import TIME, Holder
from vlmbatch.writers.soft_lock import HeldError, SoftLock

MOST_BYTES = 1 << 26
"""The largest lock file that is read: one of an earlier version has the settings of all runs."""
OURS = frozenset(("pid", "started", "runs"))
_WAIT = "wait until it has ended, or name another file with --output"
START = b'{"pid": '
TRIES = 100
"""A run opens the lock file at most this many times, while other runs make and remove it."""


class OutputLock:
    """The lock of one output file.

    `runs` has settings by fingerprint, if an earlier version of vlmbatch has stored them in the lock file;
    secrets are masked. `notices` is what the user should know about the lock.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.path = ""
        self.runs: dict[str, dict[str, Any]] = {}
        self.notices: tuple[str, ...] = ()
        self._fd: int | None = None
        self._made = False
        self._soft: SoftLock | None = None
        self.started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def acquire(self) -> None:
        """Take the lock or fail at once; creates the lock file and nothing else.

        Raises:
            ConfigError: a file of this name is not a lock file of vlmbatch; it is left unchanged.
            LockedError: another run holds it.
            OutputError: the folder is missing, cannot be written to, or the file cannot be locked.
        """
        try:
            _check_place(Path(self.output))
            # realpath: one file has one lock, also through a link
            self.path = os.path.realpath(self.output) + ".lock"
            fd = self._take_file()
            # only under the lock, since another run changes the content
            content = _content(_read(fd))
            if content is None:
                raise ConfigError(
                    f"{self.path} contains something other than a lock of vlmbatch and was left unchanged; "
                    f"{WAY_OUT}"
                )
            self.runs = _runs(content)
            self._write()
        except OSError as error:
            self.release()
            if trouble := ResourceError.behind(error):
                raise trouble from error
            raise OutputError(
                f"cannot lock {self.output}: {reason(error)}; name a file elsewhere with --output"
            ) from error
        except (ConfigError, LockedError, OutputError):
            self.release()
            raise

    def hold(self, output: int) -> None:
        """Lock the output itself, too: a hard link to it has a lock file of its own.

        Raises:
            LockedError: another run holds it under another name.
            OSError: it cannot be locked.
        """
        if self._soft is None and self._leaves_readable():
            with contextlib.suppress(system.NoLocksError):
                _lock(output, f"another run is writing to {self.output} under another name")

    def _leaves_readable(self) -> bool:
        """Whether others can read a locked file; on an SMB share of Linux they cannot (flock(2))."""
        if not system.LOCKED_IS_READABLE:
            return False
        fd = open_beside(self.path, os.O_RDONLY)
        try:
            system.read_at(fd, 1, 0)
        except PermissionError:
            return False
        finally:
            os.close(fd)
        return True

    def forget_runs(self) -> None:
        """Remove the settings from the lock file, once they are stored elsewhere; raises OSError."""
        if self.runs:
            self.runs = {}
            self._write()

    def release(self) -> None:
        """Release the lock if it is held. The lock file of an output without a line is removed."""
        if self._fd is not None and self._made and is_empty(self.output):
            remove(self.path, self._fd)  # while the lock is held
        self._made = False
        if self._soft is not None:
            self._soft.release()
            self._soft = None
        self._close()

    def _take_file(self) -> int:
        """Open and lock the lock file; again if another run has made or removed it in between."""
        for _ in range(TRIES):
            with contextlib.suppress(FileExistsError):
                self._fd, made = self._opened()
                if self._is_locked(self._fd):
                    self._made = made
                    return self._fd
            self._close()
        raise LockedError(
            f"other runs that write to {self.output} begin and end all the time; "
            "wait until they have ended, or name another file with --output"
        )

    def _is_locked(self, fd: int) -> bool:
        """Lock this file; False if the path does not lead to it any more."""
        try:
            self._take(fd, _holder(fd))
        except LockedError:
            if leads_to(self.path, fd):
                raise
            return False
        return self._soft is not None or leads_to(self.path, fd)

    def _opened(self) -> tuple[int, bool]:
        """A descriptor of the lock file, and whether this run has made the file."""
        try:
            return open_beside(self.path, os.O_RDWR), False
        except FileNotFoundError:
            return open_beside(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL), True

    def _close(self) -> None:
        if self._fd is not None:
            system.close_locked(self._fd)
            self._fd = None

    def _write(self) -> None:
        assert self._fd is not None, "the lock is not held"
        content: dict[str, Any] = {"pid": os.getpid(), "started": self.started}
        if self.runs:
            content["runs"] = self.runs
        data = json.dumps(content).encode("ascii")
        # in place, since a lock belongs to the inode; a reader must expect a truncated file
        system.write_all(self._fd, data)

    def _take(self, fd: int, holder: str) -> None:
        soft = SoftLock(f"{self.path}.held", self.started)
        try:
            _lock(fd, f"another run{holder} is writing to {self.output}")
            soft.check()  # a run may have begun while the lock service was down, or on a machine without it
        except system.NoLocksError:
            self._take_soft(soft)
        except HeldError as error:
            raise self._locked(soft.path, error) from error

    def _take_soft(self, soft: SoftLock) -> None:
        try:
            ended = soft.acquire()
        except HeldError as error:
            raise self._locked(soft.path, error) from error
        self._soft = soft
        self.notices = (
            f"{self.output}: files cannot be locked on this disk (flock); "
            f"{soft.path} keeps other runs away, and is removed at the end",
        )
        if ended is not None:
            self.notices += (
                f"{self.output}: the lock of a run that has ended "
                f"(process {ended.pid} on this machine, started {ended.started}) was taken over",
            )

    def _locked(self, path: str, error: HeldError) -> LockedError:
        message = f"another run{_described(error.holder)} is writing to {self.output}; {_WAIT}"
        if error.state == "running":
            return LockedError(message)
        return LockedError(
            f"{message}. If you are sure that the other run has ended, type: rm {shlex.quote(path)}",
            is_certain=False,
        )


def _lock(fd: int, message: str) -> None:
    try:
        system.lock(fd)
    except BlockingIOError as error:
        raise LockedError(f"{message}; {_WAIT}") from error


def _described(holder: Holder | None) -> str:
    if holder is None:
        return ""
    return f" (process {holder.pid} on {holder.host}, started {holder.started})"


def _check_place(output: Path) -> None:
    if output.is_dir():
        example = shlex.quote(str(output / "results.jsonl"))
        raise OutputError(f"{output} is a folder; name a file in it: --output {example}")
    if output.exists() and not output.is_file():
        raise OutputError(f"{output} is not a regular file; for a pipe or a device: --output - > {output}")
    parent = output.parent
    if not parent.exists():
        raise OutputError(
            f"the folder {parent} does not exist; make it with: mkdir -p {shlex.quote(str(parent))}"
        )


def _read(fd: int) -> bytes | None:
    """The bytes of the lock file, None if it is too large."""
    size = os.fstat(fd).st_size
    return system.read_at(fd, size, 0) if size <= MOST_BYTES else None


def _content(data: bytes | None) -> dict[str, Any] | None:
    """The content of a lock file, empty if the file is empty or damaged; None if vlmbatch has not written it.

    A crash may leave the start of a content, also followed by zeros or by the end of a longer content.
    """
    if data is None:
        return None
    try:
        content = strict_json.loads(data)
    except ValueError:
        start = data.rstrip(b"\0")
        return {} if start.startswith(START) or START.startswith(start) else None
    return content if isinstance(content, dict) and content.keys() <= OURS else None


def _runs(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    runs = content.get("runs")
    if not isinstance(runs, dict):
        return {}
    return {run: without_secrets(old) for run, old in runs.items() if isinstance(old, dict)}


def _holder(fd: int) -> str:
    """The run that the lock file names; empty if it names none, or cannot be read while it is locked."""
    try:
        content = _content(_read(fd)) or {}
    except PermissionError:
        return ""
    pid, started = content.get("pid"), content.get("started")
    if not isinstance(pid, int) or not isinstance(started, str) or not TIME.fullmatch(started):
        return ""
    return f" (process {pid}, started {started})"
