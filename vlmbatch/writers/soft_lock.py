"""A lock that is a file, for a file system that has no locks (flock): some NFS, Lustre and FUSE.

The file exists while its run is at work. If the run was killed, the next run on the same machine takes over.
It must not simply replace the file, which may be that of a third run by then. So it creates another file,
whose name has the token of the killed run; only one run can do that. It has the lock if the first file is
still that of the killed run. Then its file replaces the first one.

filelock's SoftFileLock takes over by RENAME_EXCHANGE (renameat2(2)), which NFS and Lustre refuse.
"""

import contextlib
import errno
import os

from vlmbatch.errors import ConfigError
from vlmbatch.writers.beside import open_beside
from vlmbatch.writers.holder import Holder, State

MOST_BYTES = 8192
MOST_ENDED = 16
"""Runs that were killed while each took over the lock of the one before."""
TRIES = 3


class HeldError(Exception):
    """Another run holds the lock: `holder`, None if its file cannot be read or keeps changing."""

    def __init__(self, holder: Holder | None, state: State) -> None:
        super().__init__()
        self.holder = holder
        self.state = state


class SoftLock:
    """The lock with a file at `path`."""

    def __init__(self, path: str, started: str) -> None:
        self.path = path
        self._own = Holder.of_this_process(started)

    def acquire(self) -> Holder | None:
        """Take the lock; returns the run that had it and ended without releasing it, None if there is none.

        Raises:
            ConfigError: a file of this name is a link, or not a regular file.
            HeldError: another run holds it.
            OSError: the file cannot be created.
        """
        for _ in range(TRIES):
            ended, places = self._ended()
            try:
                self._create(places[-1])
            except FileExistsError:  # another run was faster
                continue
            if len(places) == 1:
                return None
            if self._leads_to_own():
                os.replace(places[-1], self.path)  # noqa: PTH105  # like the calls around it
                for place in places[1:-1]:
                    _remove(place)
                return ended
            _remove(places[-1])
        raise HeldError(None, "unknown")

    def check(self) -> None:
        """Raise HeldError if another run holds the lock; or ConfigError or OSError, as acquire() does."""
        self._ended()

    def release(self) -> None:
        """Remove the file, unless it is not that of this run any more."""
        with contextlib.suppress(OSError, ConfigError):
            holder = Holder.parse(_read(self.path))
            if holder is not None and holder.token == self._own.token:
                _remove(self.path)

    def _ended(self) -> tuple[Holder | None, list[str]]:
        """The last run that has ended; and the files of all such runs, with the one to create at the end."""
        ended: Holder | None = None
        places = [self.path]
        while len(places) <= MOST_ENDED:
            try:
                holder = Holder.parse(_read(places[-1]))
            except FileNotFoundError:
                return ended, places
            state = holder.state() if holder is not None else "unknown"
            if holder is None or state != "ended":
                raise HeldError(holder, state)
            ended = holder
            places.append(self._after(holder))
        raise HeldError(None, "unknown")

    def _leads_to_own(self) -> bool:
        """Whether the files of ended runs, from the first one on, lead to the file of this run."""
        place = self.path
        for _ in range(MOST_ENDED + 1):
            try:
                holder = Holder.parse(_read(place))
            except FileNotFoundError:
                return False
            if holder is None or holder.token == self._own.token:
                return holder is not None
            place = self._after(holder)
        return False

    def _after(self, holder: Holder) -> str:
        return f"{self.path}.{holder.token}"

    def _create(self, place: str) -> None:
        fd = open_beside(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            data = self._own.to_bytes()
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)  # NFS tells only now that the disk is full
        except OSError:
            _remove(place)
            raise
        finally:
            os.close(fd)


def _read(place: str) -> bytes:
    fd = open_beside(place, os.O_RDONLY)
    try:
        return os.read(fd, MOST_BYTES)
    finally:
        os.close(fd)


def _remove(place: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(place)  # noqa: PTH108  # like the calls around it
