"""The file FILE.runs next to an output: one JSON line for each fingerprint in it, with prompts and settings.

A line is on the disk before the first record of its run, so that each record leads to its prompt. The file is
read and written only while the lock of the output is held.
"""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmbatch import strict_json, system
from vlmbatch.errors import ConfigError, OutputError, ResourceError
from vlmbatch.records import DEFAULT_PROMPT_NAME
from vlmbatch.writers.append import reason
from vlmbatch.writers.beside import WAY_OUT, is_empty, open_beside, remove

LINE_START = b'{"v":1,"run":"'
MOST_BYTES = 1 << 26
"""The largest file that is read: each change of settings adds one line of a few kilobytes."""


class RunLog:
    """The settings of the runs in an output. `runs` has them by fingerprint, without secrets.

    After open(), `bad_lines` is the number of lines that describe no run; they are skipped and stay.
    """

    def __init__(self, output: str) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.bad_lines = 0
        self.output = output
        self.path = ""
        self._fd: int | None = None
        self._made = False
        self._is_writable = True
        self._end = 0
        self._tail = b""

    def open(self) -> None:
        """Read the file, if there is one; nothing is changed yet.

        Raises:
            ConfigError: the file does not belong to vlmbatch.
            OutputError: it cannot be read.
        """
        try:
            self.path = os.path.realpath(self.output) + ".runs"  # next to the lock file, also through a link
            self._fd = self._opened()
            if self._fd is not None:
                self._read(self._fd)
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except (ConfigError, OutputError):
            self.close()
            raise

    def require_writable(self) -> None:
        """Raise OutputError if add() would fail for lack of permission."""
        folder = Path(self.path).parent
        if not (self._is_writable if self._fd is not None else os.access(folder, os.W_OK)):
            raise self._failure(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))

    def add(self, runs: Mapping[str, Mapping[str, Any]], started: str | None) -> None:
        """Append a line for each of these runs that has none, and sync them to the disk.

        `started` is the time of their start in UTC, None if unknown.

        Raises:
            OutputError: there is no permission to write.
            OSError: the file cannot be written; it ends with a whole line, or the next run repairs it.
        """
        lines = b"".join(_line(run, runs[run], started) for run in runs if run not in self.runs)
        if lines or self._tail:
            self.require_writable()
            self._append(self._repaired_end() + lines)
        self.runs |= {run: dict(settings) for run, settings in runs.items()}

    def start_anew(self, run: str, settings: Mapping[str, Any], started: str) -> None:
        """Replace all lines by the line of this run.

        Raises:
            OSError: the file cannot be written.
        """
        self.runs, self._tail, self._end = {}, b"", 0
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
        self.add({run: settings}, started)

    def close(self) -> None:
        """Close the file, if it is open. A new file of an output without a line is removed."""
        if self._fd is not None:
            if self._made and is_empty(self.output):
                remove(self.path, self._fd)
            os.close(self._fd)
            self._fd = None

    def _opened(self) -> int | None:
        """A descriptor of the file, None without a file."""
        try:
            return open_beside(self.path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            self._is_writable = False
            return open_beside(self.path, os.O_RDONLY)

    def _read(self, fd: int) -> None:
        if os.fstat(fd).st_size > MOST_BYTES:
            raise OutputError(f"{self.path} has more than {MOST_BYTES >> 20} MiB; {WAY_OUT}")
        with open(fd, "rb", closefd=False) as file:
            for number, line in enumerate(file):
                known = _run_in(line)
                is_whole = line.endswith(b"\n")
                if known is None and not number and not _is_start(line):
                    raise self._foreign()
                if known is not None:
                    self.runs |= dict([known])
                elif is_whole and line.strip():
                    self.bad_lines += 1
                if is_whole:
                    self._end += len(line)
                else:
                    self._tail = line

    def _repaired_end(self) -> bytes:
        """Cut off an incomplete last line, which no record belongs to; returns the bytes to write first."""
        tail, self._tail = self._tail, b""
        if not tail:
            return b""
        if _run_in(tail) is not None or not _is_start(tail):
            self._end += len(tail) + 1
            return b"\n"
        assert self._fd is not None, "a tail was read from it"
        os.ftruncate(self._fd, self._end)
        return b""

    def _append(self, data: bytes) -> None:
        created = self._fd is None
        self._made |= created
        if self._fd is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | system.BINARY
            self._fd = os.open(self.path, flags, 0o666)
        size = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # otherwise the next run repairs the end
                os.ftruncate(self._fd, size)
            raise
        if created:
            sync_folder(Path(self.path).parent)

    def _foreign(self) -> ConfigError:
        return ConfigError(
            f"{self.path} contains something other than settings of runs and was left unchanged; {WAY_OUT}"
        )

    def _failure(self, error: OSError) -> ResourceError | OutputError:
        return ResourceError.behind(error) or OutputError(
            f"cannot use {self.path}: {reason(error)}; {WAY_OUT}"
        )


def sync_folder(folder: Path) -> None:
    """Sync the name of a new file to disk; some file systems cannot sync a folder, and do not need it."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _line(run: str, settings: Mapping[str, Any], started: str | None) -> bytes:
    told = {
        "v": 1,
        "run": run,
        "prompts": {DEFAULT_PROMPT_NAME: settings.get("prompt")},
        "settings": dict(settings),
        "version": _version() if started else None,
        "started_at": started,
    }
    return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"


def _version() -> str | None:
    """The version of vlmbatch, None if it is not installed but only imported."""
    from importlib import metadata  # slow to import, and needed once

    try:
        return metadata.version("vlmbatch")
    except metadata.PackageNotFoundError:
        return None


def _run_in(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """The fingerprint and the settings in a line, None if it has none."""
    try:
        told = strict_json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    run, settings = told.get("run"), told.get("settings")
    return (run, settings) if isinstance(run, str) and isinstance(settings, dict) else None


def _is_start(line: bytes) -> bool:
    """Whether this is the start of our line: a crash may leave one, zeros after it, or only zeros."""
    start = line.rstrip(b"\0\n")
    return start.startswith(LINE_START) or LINE_START.startswith(start)
