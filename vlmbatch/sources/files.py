"""Reads files of any type: a FIFO never blocks, a device is never read, a growing file never fills memory."""

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ImageError, ResourceError
from vlmbatch.events import SourceProblem
from vlmbatch.images import FileStamp, ImageRef, ImageVersion, SourceImage
from vlmbatch.imaging.formats import HEAD_BYTES
from vlmbatch.sources.globs import Globs
from vlmbatch.sources.in_memory import InMemoryImage, content_version, read_in_memory
from vlmbatch.sources.opening import ReplacedError, opened
from vlmbatch.sources.own_files import OwnFiles

TRIES = 3
OF_A_KERNEL = "the file has no fixed size, like files of the kernel in /proc and /sys, so it is not an image"

# errors that network file systems return for a moment after a server restart
_FLAKY = (errno.EIO, errno.ESTALE)


class FileSource:
    """The base of all sources: its globs, its counters, and reading."""

    def __init__(
        self,
        options: InputOptions,
        on_problem: Callable[[SourceProblem], None] = lambda problem: None,
        own: OwnFiles | None = None,
        in_memory: Sequence[InMemoryImage] = (),
    ) -> None:
        """`on_problem` receives each folder or file that cannot be opened, on the thread that iterates.

        The images `in_memory` come before those of files, and no glob concerns them.
        """
        self.ignored = 0
        self.ignored_kinds = Counter[str]()
        self.unreadable = 0
        self.skipped_entries = Counter[str]()
        self.empty_paths: list[str] = []
        self._globs = Globs(options)
        self._max_bytes = options.max_bytes
        self._on_problem = on_problem
        self._own = own or OwnFiles()
        self._in_memory = tuple(in_memory)

    def read(self, ref: ImageRef) -> SourceImage:
        """See `read_file` and `read_in_memory`; the limit is --max-bytes."""
        if isinstance(ref, InMemoryImage):
            return read_in_memory(ref, max_bytes=self._max_bytes)
        return read_file(ref, max_bytes=self._max_bytes)

    def stamp(self, ref: ImageRef) -> FileStamp | None:
        """See `stamp_file`; None for an image in memory."""
        return None if isinstance(ref, InMemoryImage) else stamp_file(ref)

    def version(self, ref: ImageRef) -> ImageVersion | None:
        """See protocols.Source."""
        if isinstance(ref, InMemoryImage):
            return content_version(ref, max_bytes=self._max_bytes)
        return stamp_file(ref)

    def holds_nothing(self) -> bool:
        """False: a list may be empty."""
        return False

    def _ignore(self, kind: str | None) -> None:
        self.ignored += 1
        if kind is not None:
            self.ignored_kinds[kind] += 1

    def _skip(self, kind: str) -> None:
        self.skipped_entries[kind] += 1

    def _report(self, problem: SourceProblem) -> None:
        self.unreadable += 1
        self._on_problem(problem)


def read_file(ref: ImageRef, *, max_bytes: int) -> SourceImage:
    """Read the whole file at `ref.uri`, but never more than one byte beyond `max_bytes`.

    A file that changes while it is read is read once more; a read that the disk fails is tried three times.

    Raises:
        ImageError: vanished, unreadable, too large, not a regular file, still changing, or the disk failed.
        ResourceError: the machine is out of descriptors or memory.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            image = _read_whole(ref, max_bytes) or _read_whole(ref, max_bytes)
        except OSError as error:
            if error.errno in _FLAKY and tries_left:
                continue
            raise ResourceError.behind(error) or _as_image_error(error, ref) from error
        except MemoryError as error:
            raise ResourceError.behind(error) from error  # type: ignore[misc]  # it always is one
        if image is None:
            raise ImageError(
                "another program is writing to the file; run again when it is complete",
                kind="io_error",
                retryable=True,
            )
        return image
    raise AssertionError("the last try returns or raises")


def stamp_file(ref: ImageRef) -> FileStamp | None:
    """Size and mtime of the file at `ref.uri`; None if they cannot be read."""
    try:
        status = os.stat(ref.uri)  # noqa: PTH116  # a Path costs more than the call, a million times
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return FileStamp(status.st_size, status.st_mtime)


def read_head(image: ImageRef) -> bytes:
    """The first bytes of a file, enough to recognise its format; empty for a FIFO, socket or device.

    Raises:
        OSError: it cannot be opened or read.
        ResourceError: the machine is out of descriptors or memory.
    """
    try:
        with opened(image) as fd:
            return os.read(fd, HEAD_BYTES) if _no_file(os.fstat(fd)) is None else b""
    except OSError as error:
        if trouble := ResourceError.behind(error):
            raise trouble from error
        raise


def reason(error: OSError) -> str:
    """The system's message for use inside a sentence: ``permission denied``."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def _read_whole(ref: ImageRef, max_bytes: int) -> SourceImage | None:
    """The content of the file, or None if it changed during the read."""
    if ref.walked is None:  # the walk has found no other kinds
        _refuse_unopened(ref)
    with opened(ref) as fd:
        before = os.fstat(fd)
        if (kind := _no_file(before)) is not None:
            raise ImageError(kind, kind="not_a_file")
        if before.st_size > max_bytes:
            raise ImageError(
                f"the file has {before.st_size:,} bytes, more than {max_bytes:,}; raise --max-bytes "
                "to accept it",
                kind="too_large",
            )
        data = _read_up_to(fd, before.st_size + 1)
        after = os.fstat(fd)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if unchanged and data and not after.st_size:
        raise ImageError(OF_A_KERNEL, kind="not_a_file")
    if not unchanged or len(data) != after.st_size:
        return None
    return SourceImage(data=data, sha256=hashlib.sha256(data).hexdigest(), stamp=_stamp(after))


def _refuse_unopened(ref: ImageRef) -> None:
    """Raise ImageError for what is no file, before it is opened: to open some devices does something."""
    with suppress(ValueError):  # a NUL in the path: opening it tells
        if (kind := _no_file(os.stat(ref.uri))) is not None:  # noqa: PTH116  # like the calls above
            raise ImageError(kind, kind="not_a_file")


def _read_up_to(fd: int, size: int) -> bytes:
    chunks = []
    while size and (chunk := os.read(fd, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _stamp(status: os.stat_result) -> FileStamp:
    return FileStamp(status.st_size, status.st_mtime)


def _no_file(status: os.stat_result) -> str | None:
    """Why it is not a file with content; None if it is one."""
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        return f"the path is {kinds.get(stat.S_IFMT(status.st_mode), 'a device')}, not a file"
    return OF_A_KERNEL if status.st_dev in _kernel_devices() else None


@cache
def _kernel_devices() -> frozenset[int]:
    """The devices of /proc and /sys: reading one of their files may block or change something."""
    devices = set()
    for place in ("/proc", "/sys"):
        with suppress(OSError):  # not each system has them
            devices.add(os.stat(place).st_dev)  # noqa: PTH116  # like the calls above
    return frozenset(devices - {os.stat("/").st_dev})  # noqa: PTH116  # it may be a folder of the disk


def _is_of_a_kernel(ref: ImageRef) -> bool:
    try:
        return os.stat(ref.uri).st_dev in _kernel_devices()  # noqa: PTH116  # like the calls above
    except OSError:
        return False


def _as_image_error(error: OSError, ref: ImageRef) -> ImageError:
    if isinstance(error, ReplacedError):
        return ImageError(
            "a link replaced this file, or a folder above it, after the run had found it; run again",
            kind="vanished",
            retryable=True,
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ImageError("the file does not exist or was removed", kind="vanished", retryable=True)
    if error.errno == errno.EAGAIN or _is_of_a_kernel(ref):  # a file of a disk never makes a reader wait
        return ImageError(OF_A_KERNEL, kind="not_a_file")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ImageError(
            f"the file cannot be read: {reason(error)}; try chmod +r", kind="unreadable", retryable=True
        )
    if error.errno == errno.ENAMETOOLONG:
        return ImageError("the path of the file is longer than the system allows", kind="unreadable")
    if error.errno == errno.ELOOP:
        return ImageError("the file is a link that leads back to itself", kind="not_a_file")
    if error.errno in (errno.ENXIO, errno.ENODEV):  # from opening a socket or an absent device
        return ImageError("the path is a socket or a device, not a file", kind="not_a_file")
    return ImageError(f"the disk failed: {reason(error)}; run again", kind="io_error", retryable=True)
