"""Opens files and folders that a walk has found, and follows no link that has replaced them since."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from vlmbatch import system
from vlmbatch.images import ImageRef

LONGEST = 4096
"""The most characters of a path; no system allows more bytes. It limits the steps to a folder."""
_FOLDER = os.O_RDONLY | system.DIRECTORY  # O_PATH would make no automounter mount


class ReplacedError(OSError):
    """A link has replaced a file or a folder after the walk found it."""


@contextmanager
def opened(image: ImageRef) -> Iterator[int]:
    """A descriptor of the file, to read; a FIFO does not block.

    Raises:
        ReplacedError: it, or a folder between it and the root of the walk, is a link now.
        OSError: it cannot be opened.
    """
    try:
        fd = _open(image)
    except ValueError as error:  # a NUL in the path, which no file can have
        raise FileNotFoundError(errno.ENOENT, "No such file", image.uri) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _open(image: ImageRef) -> int:
    flags = os.O_RDONLY | system.NONBLOCK | system.BINARY  # a FIFO would otherwise wait for a writer
    if image.walked is None:
        return os.open(image.uri, flags)
    root, is_link = image.walked.root, image.walked.is_link
    folder, name = os.path.split(image.uri)
    if not system.OPENS_IN_FOLDERS:
        _refuse_links(root, folder if is_link else image.uri)
        return os.open(image.uri, flags)
    return _step(_folder(root, folder), name, flags | (0 if is_link else system.NOFOLLOW))


class Folders:
    """Opens the folders of a walk. The parent of the last one stays open: its other folders come next."""

    def __init__(self, root: str) -> None:
        """The root itself may be a link."""
        self._root = root
        self._parent = ""
        self._fd: int | None = None

    @contextmanager
    def opened(self, folder: str) -> Iterator[int | str]:
        """A folder to list: its descriptor, or its path on Windows; raises as opened() does."""
        if not system.OPENS_IN_FOLDERS:
            _refuse_links(self._root, folder)
            yield folder
            return
        if folder == self._root:
            fd = os.open(folder, _FOLDER)
        else:
            parent, _, name = folder.rpartition("/")
            fd = _entry(self._open_parent(parent), name, _FOLDER | system.NOFOLLOW)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open_parent(self, parent: str) -> int:
        """The open parent: the last one, or in one step the folder below it, or in steps from the root."""
        if self._fd is not None and self._parent == parent:
            return self._fd
        above, _, name = parent.rpartition("/")
        if self._fd is not None and self._parent == above and len(parent) <= LONGEST:
            fd, self._fd = self._fd, None  # the step closes it
            self._fd = _step(fd, name, _FOLDER | system.NOFOLLOW)
        else:
            self.close()
            self._fd = _folder(self._root, parent)
        self._parent = parent
        return self._fd

    def close(self) -> None:
        """Close the parent, if one is open."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _folder(root: str, folder: str) -> int:
    """Open a folder in steps from its root, since O_NOFOLLOW concerns only the last name of a path."""
    if len(folder) > LONGEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), folder)
    fd = os.open(root, _FOLDER)
    for name in _names_below(root, folder):
        fd = _step(fd, name, _FOLDER | system.NOFOLLOW)
    return fd


def _names_below(root: str, path: str) -> Iterator[str]:
    below = path if root == "." else path.removeprefix(root)  # it is no prefix of /tmp if it is //
    return filter(None, below.split("/"))


def _refuse_links(root: str, path: str) -> None:
    """Raise ReplacedError if the path, or a folder between it and the root, is a link now; for Windows.

    A link that is made after this moment is followed.
    """
    place = root
    for name in _names_below(root, path):
        place = f"{place.rstrip('/')}/{name}"
        if system.is_link(os.lstat(place)):
            raise ReplacedError(errno.ELOOP, "a link has replaced it", place)


def _step(parent: int, name: str, flags: int) -> int:
    """Open an entry of an open folder, and close the folder."""
    try:
        return _entry(parent, name, flags)
    finally:
        os.close(parent)


def _entry(parent: int, name: str, flags: int) -> int:
    """Open an entry of an open folder."""
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK) and _is_link(parent, name):
            raise ReplacedError(errno.ELOOP, "a link has replaced it", name) from error
        raise


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:  # it is gone by now
        return False
