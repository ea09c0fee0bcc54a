"""Opens the files next to an output, whose names are easy to guess: only regular files, through no link."""

import contextlib
import os
import stat

from vlmbatch import system
from vlmbatch.errors import ConfigError

WAY_OUT = "move it away, or name another file with --output"


def open_beside(path: str, flags: int) -> int:
    """A descriptor of this file; O_CREAT creates it. A pipe does not block, and no existing file changes.

    A link could lead to any file, and a second name could belong to any file, so both are refused.

    Raises:
        ConfigError: it is a link, has a second name, or is not a regular file.
        OSError: it cannot be opened.
    """
    with contextlib.suppress(FileNotFoundError):  # os.open creates it, or fails
        _check(path, os.lstat(path))  # first, since opening some devices has effects
    fd = os.open(path, flags | system.NOFOLLOW | system.NONBLOCK | system.BINARY, 0o666)
    try:
        _check(path, os.fstat(fd))
    except ConfigError:
        os.close(fd)
        raise
    return fd


def leads_to(path: str, fd: int) -> bool:
    """Whether this path leads to the open file.

    It is opened, since an NFS client asks the server only then; it remembers the path of a removed file.
    """
    try:
        found = open_beside(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(found), os.fstat(fd))
    finally:
        os.close(found)


def is_empty(path: str) -> bool:
    """Whether the file is missing or has no bytes."""
    try:
        return os.stat(path).st_size == 0  # noqa: PTH116  # like the calls around it
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def remove(path: str, fd: int) -> None:
    """Remove this open file, if the path still leads to it. It stays on Windows, where it must be closed."""
    with contextlib.suppress(OSError, ConfigError):
        if leads_to(path, fd):
            os.unlink(path)  # noqa: PTH108  # like the calls around it


def _check(path: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{path} is a link and was left unchanged; {WAY_OUT}")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file and was left unchanged; {WAY_OUT}")
    if found.st_nlink > 1:
        raise ConfigError(f"{path} has a second name (a hard link) and was left unchanged; {WAY_OUT}")
