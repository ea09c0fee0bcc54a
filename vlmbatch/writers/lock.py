"""Allows one run at a time to write to an output file.

The lock file is next to the output and is never deleted: a lock on the output itself would be lost if the
output is moved, and two runs could hold two lock files of one name if a lock file were removed.
"""

import fcntl
import json
import os
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmbatch import strict_json
from vlmbatch.config.masking import without_secrets
from vlmbatch.errors import ConfigError, LockedError, OutputError, ResourceError
from vlmbatch.writers.append import reason
from vlmbatch.writers.beside import WAY_OUT, open_beside

MOST_BYTES = 1 << 26
"""The largest lock file that is read: one of an earlier version has the settings of all runs."""
OURS = frozenset(("pid", "started", "runs"))
START = b'{"pid": '
_TIME = re.compile(r"[0-9TZ:-]{1,20}")


class OutputLock:
    """The lock of one output file.

    `runs` has settings by fingerprint, if an earlier version of vlmbatch has stored them in the lock file;
    secrets are masked.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.path = ""
        self.runs: dict[str, dict[str, Any]] = {}
        self._fd: int | None = None
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
            self._fd = open_beside(self.path, os.O_RDWR | os.O_CREAT)
            holder = _holder(_content(_read(self._fd)) or {})
            self._lock(self._fd, f"another run{holder} is writing to {self.output}")
            # only under the lock, since another run changes the content
            content = _content(_read(self._fd))
            if content is None:
                raise ConfigError(
                    f"{self.path} contains something other than a lock of vlmbatch and was left unchanged. "
                    f"{WAY_OUT}"
                )
            self.runs = _runs(content)
            self._write()
        except OSError as error:
            self.release()
            if trouble := ResourceError.behind(error):
                raise trouble from error
            raise OutputError(
                f"cannot lock {self.output}: {reason(error)}. Name a file elsewhere with --output"
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
        self._lock(output, f"another run is writing to {self.output} under another name")

    def forget_runs(self) -> None:
        """Remove the settings from the lock file, once they are stored elsewhere; raises OSError."""
        if self.runs:
            self.runs = {}
            self._write()

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self) -> None:
        assert self._fd is not None, "the lock is not held"
        content: dict[str, Any] = {"pid": os.getpid(), "started": self.started}
        if self.runs:
            content["runs"] = self.runs
        data = json.dumps(content).encode("ascii")
        # in place, since a lock belongs to the inode; a reader must expect a truncated file
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def _lock(self, fd: int, message: str) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            way_out = "wait until it has ended, or name another file with --output"
            raise LockedError(f"{message}; {way_out}") from error


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
    return os.pread(fd, size, 0) if size <= MOST_BYTES else None


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


def _holder(content: Mapping[str, Any]) -> str:
    pid, started = content.get("pid"), content.get("started")
    if not isinstance(pid, int) or not isinstance(started, str) or not _TIME.fullmatch(started):
        return ""
    return f" (process {pid}, started {started})"
