"""The calls that Windows lacks, and their replacement there.

Nothing here depends on the name of the system: each missing call is replaced. So a test can take calls away
(tests/stand_in.py).
"""

import errno
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # takes tens of milliseconds, and --help has no use for it


def _module(name: str) -> Any:
    """A module of the standard library; None on a system without it."""
    try:
        return import_module(name)
    except ImportError:
        return None


_fcntl, _msvcrt, _resource = map(_module, ("fcntl", "msvcrt", "resource"))

BINARY: int = getattr(os, "O_BINARY", 0)
"""For each os.open: without it, Windows changes line ends. O_CLOEXEC is not needed, Python always sets it."""
NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
OPENS_IN_FOLDERS = (
    bool(NOFOLLOW and DIRECTORY) and os.open in os.supports_dir_fd and os.scandir in os.supports_fd
)
"""Whether an entry of an open folder can be opened, and not through a link."""
HAS_OWNERS = hasattr(os, "geteuid")
"""Whether the owner and the mode of a file say which users can change it; they do not on Windows."""

STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last one is Ctrl-Break, of Windows
    if hasattr(signal, name)
)

_poll: Any = getattr(_module("select"), "poll", None)
CAN_WAIT_FOR_PIPES = _poll is not None
"""Whether is_ready() can be used."""

LOCKED_IS_READABLE = _msvcrt is None
"""Whether others can read all of a locked file; on Windows they cannot read the locked byte."""
_JUNCTION = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT
_LOCKED_BYTE = (1 << 31) - 16
"""The byte that is locked on Windows, beyond the content of a lock file."""
_NO_LOCKS = frozenset((errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL))


class NoLocksError(OSError):
    """The system, or the file system of this file, has no locks."""


def lock(fd: int) -> None:
    """Lock an open file until it is closed, or fail at once.

    Raises:
        BlockingIOError: it is locked already.
        NoLocksError: files cannot be locked here.
        OSError: another reason.
    """
    try:
        if _fcntl is not None:
            _fcntl.flock(fd, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        elif _msvcrt is not None:
            _locking(fd, _msvcrt.LK_NBLCK)
        else:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocksError(*error.args) from error
        if error.errno == errno.EACCES:  # so msvcrt and SMB shares (Linux's smb2maperror.c) say: it is locked
            raise BlockingIOError(*error.args) from error
        raise


def close_locked(fd: int) -> None:
    """Close a file that may be locked; Windows unlocks a file that is only closed some time later."""
    if _fcntl is None and _msvcrt is not None:
        with suppress(OSError):
            _locking(fd, _msvcrt.LK_UNLCK)
    os.close(fd)


def _locking(fd: int, mode: int) -> None:
    os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
    _msvcrt.locking(fd, mode, 1)


def is_junction(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is a junction: a link to a folder, of Windows alone."""
    return _msvcrt is not None and is_link(entry.stat(follow_symlinks=False))


def is_link(found: os.stat_result) -> bool:
    """Whether os.lstat has found a link or a junction."""
    return stat.S_ISLNK(found.st_mode) or getattr(found, "st_reparse_tag", 0) == _JUNCTION


_seeking = threading.Lock()


def read_at(fd: int, size: int, start: int) -> bytes:
    """Up to `size` bytes of an open file from `start` on; several threads may read. Raises OSError."""
    if hasattr(os, "pread"):
        return bytes(os.pread(fd, size, start))
    with _seeking:
        os.lseek(fd, start, os.SEEK_SET)
        return os.read(fd, size)


def write_all(fd: int, data: bytes) -> None:
    """Make this the whole content of an open file. Raises OSError."""
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, data)
    os.ftruncate(fd, len(data))


def is_running(pid: int) -> bool | None:
    """Whether a process with this number exists; None if unknown. It must be above 0."""
    if _msvcrt is not None:  # there os.kill ends a process with any signal
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def user_id() -> int:
    """The number of the user of this process; 0, the owner of all files, on Windows."""
    return int(os.geteuid()) if hasattr(os, "geteuid") else 0


def cpus_of_process() -> int | None:
    """The number of processors that this process may use; None if only Linux could tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def memory() -> int | None:
    """The memory of this machine in bytes; None if unknown."""
    if hasattr(os, "sysconf"):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    import ctypes  # takes milliseconds

    windows: Any = getattr(ctypes, "windll", None)
    status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: its size and the load in the first 8 bytes
    if windows is not None and windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return int(status[1])
    return None


def memory_limits() -> tuple[int | None, int | None]:
    """The limits of this process in bytes: of all that it maps, and of its data (ulimit -v, -d)."""
    if _resource is None:
        return None, None
    return _limit(_resource.RLIMIT_AS), _limit(_resource.RLIMIT_DATA)


def _limit(kind: int) -> int | None:
    soft = int(_resource.getrlimit(kind)[0])
    return None if soft == _resource.RLIM_INFINITY else soft


def most_files() -> int:
    """How many files and connections this process may open."""
    limit = _limit(_resource.RLIMIT_NOFILE) if _resource is not None else None
    return sys.maxsize if limit is None else limit


def allow_files(number: int) -> None:
    """Raise the limit on open files to this number, as far as it can be raised."""
    if _resource is None:
        return
    now, most = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    enough = number if most == _resource.RLIM_INFINITY else min(most, number)
    with suppress(OSError, ValueError):  # macOS has its own upper bound
        _resource.setrlimit(_resource.RLIMIT_NOFILE, (max(now, enough), most))


def on_signal(loop: "AbstractEventLoop", number: int, handle: Callable[[int], None]) -> None:
    """Call `handle` in this event loop at each signal of this number; a loop that has ended ignores it."""
    try:
        loop.add_signal_handler(number, handle, number)
    except NotImplementedError:  # Windows
        signal.signal(number, partial(_pass_on, loop, handle))


def _pass_on(loop: "AbstractEventLoop", handle: Callable[[int], None], number: int, _frame: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(handle, number)


def never_block(pipe: IO[bytes]) -> None:
    """Let a write to this pipe take what fits, without waiting; for use with is_ready()."""
    if CAN_WAIT_FOR_PIPES and hasattr(os, "set_blocking"):
        os.set_blocking(pipe.fileno(), False)


def is_ready(pipe: IO[bytes], *, to_write: bool, seconds: float | None) -> bool:
    """Wait until a pipe can be written to or read from; False after so many seconds, None for no limit."""
    waiting = _poll()
    waiting.register(pipe, 4 if to_write else 1)  # POLLOUT, POLLIN
    return bool(waiting.poll(None if seconds is None else 1000 * seconds))


def after_fork(call: Callable[[], None]) -> None:
    """Call this in each child that is a fork; Windows has none."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
