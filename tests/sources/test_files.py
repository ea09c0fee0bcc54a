"""Reading one file of any type, also while it changes."""

import errno
import os
import resource
import socket
from pathlib import Path

import pytest
from photo_tree import failure_of, put, read, source, unprivileged

from vlmbatch.errors import ResourceError
from vlmbatch.images import ImageRef
from vlmbatch.sources.files import read_head


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test; ids are relative to it."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_whole_file_and_its_stamp() -> None:
    """Reading returns all bytes and the same stamp as `stamp` without reading."""
    put("a.jpg", data=b"x" * 300_000)
    photos = source("a.jpg")
    (ref,) = photos
    image = photos.read(ref)
    assert image.data == b"x" * 300_000
    assert image.stamp == photos.stamp(ref)
    assert image.stamp.bytes == 300_000
    assert image.stamp.mtime == Path("a.jpg").stat().st_mtime


def test_vanished() -> None:
    """A file that is removed after it was listed fails as vanished, and a later run retries it."""
    put("p/a.jpg")
    photos = source("p")
    (ref,) = photos
    Path("p/a.jpg").unlink()
    failure = failure_of("p/a.jpg")
    assert (failure.kind, failure.retryable) == ("vanished", True)
    assert photos.stamp(ref) is None


@pytest.mark.parametrize("path", ["p/a.jpg/b.jpg", "nul\0.jpg"])
def test_paths_that_no_file_can_have(path: str) -> None:
    """A path below a file, or with a NUL in it, fails as vanished."""
    put("p/a.jpg")
    assert failure_of(path).kind == "vanished"
    assert source("p").stamp(ImageRef(id=path, uri=path)) is None


def test_permission_denied() -> None:
    """A file without read permission fails as unreadable, and a later run retries it."""
    put("a.jpg")
    Path("a.jpg").chmod(0)
    with unprivileged():
        failure = failure_of("a.jpg")
    assert (failure.kind, failure.retryable) == ("unreadable", True)


def test_too_large() -> None:
    """A file above --max-bytes is refused by its size, and one of exactly that size is read."""
    put("a.jpg", data=b"12345")
    failure = failure_of("a.jpg", max_bytes=4)
    assert (failure.kind, failure.retryable) == ("too_large", False)
    assert "--max-bytes" in str(failure)
    assert read("a.jpg", max_bytes=5).data == b"12345"


def test_entries_that_are_no_files() -> None:
    """A folder, FIFO, socket, device or link to itself fails without blocking if it is the PATH."""
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("self").symlink_to("self")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        kinds = {path: failure_of(path) for path in ("folder", "fifo", "socket", "/dev/zero", "self")}
    assert {failure.kind for failure in kinds.values()} == {"not_a_file"}
    assert "a folder" in str(kinds["folder"])
    assert "a FIFO" in str(kinds["fifo"])


KERNELS = (
    "/proc/self/status",
    "/proc/self/mem",
    "/proc/1/environ",
    "/proc/kmsg",
    "/sys/kernel/uevent_seqnum",
)


@pytest.mark.parametrize("path", [*KERNELS, "link"])
def test_files_of_the_kernel_are_not_read(path: str) -> None:
    """A file in /proc or /sys, also behind a link, fails as `not_a_file`, and the message says so."""
    Path("link").symlink_to("/proc/self/status")
    if not Path(path).exists():
        pytest.skip("this system has no such file")
    failure = failure_of(path)
    assert (failure.kind, failure.retryable) == ("not_a_file", False)
    assert "like files of the kernel in /proc and /sys, so it is not an image" in str(failure)


def test_the_head_of_a_file_of_the_kernel_is_not_read() -> None:
    """read_head() returns nothing of a file in /proc, so a walk reads no such file."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no such file")
    assert read_head(ImageRef(id="/proc/self/status", uri="/proc/self/status")) == b""


def test_a_head_is_read_of_files_only() -> None:
    """read_head() returns at most 64 bytes of a file, and none of a FIFO or a device."""
    put("a", data=b"x" * 100)
    os.mkfifo("fifo")
    assert [read_head(ImageRef(id=path, uri=path)) for path in ("a", "fifo", "/dev/zero")] == [
        b"x" * 64,
        b"",
        b"",
    ]


def test_a_name_too_long() -> None:
    """A path longer than the system allows fails as unreadable."""
    assert failure_of("x" * 5000).kind == "unreadable"


def test_a_file_that_grows_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows during the read is read once more, completely."""
    put("a.jpg", data=b"half")
    grow_on_read(monkeypatch, times=1)
    assert read("a.jpg").data == b"half and more"


def test_a_file_that_keeps_growing_fails_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that keeps growing fails as io_error, and a later run retries it."""
    put("a.jpg", data=b"half")
    grow_on_read(monkeypatch, times=100)
    failure = failure_of("a.jpg")
    assert (failure.kind, failure.retryable) == ("io_error", True)
    assert "another program is writing to the file" in str(failure)
    assert Path("a.jpg").stat().st_size < 100  # it was read twice, not until it ended


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_flaky_disk_is_read_three_times(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read survives two errors of a network file system; a third fails the image for now."""
    put("a.jpg", data=b"data")
    fail_on_read(monkeypatch, code, times=2)
    assert read("a.jpg").data == b"data"
    fail_on_read(monkeypatch, code, times=3)
    failure = failure_of("a.jpg")
    assert (failure.kind, failure.retryable) == ("io_error", True)


def test_running_out_of_descriptors_is_no_failure_of_the_image() -> None:
    """Too many open files is a ResourceError of the run, and its message says how to allow more."""
    put("a.jpg")
    photos = source("a.jpg")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(ResourceError, match=r"too many open files.*ulimit -n"):
            photos.read(ImageRef(id="a.jpg", uri="a.jpg"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read closes its descriptor, both after success and after every failure."""
    put("a.jpg", data=b"12345")
    os.mkfifo("fifo")
    before = open_descriptors()
    read("a.jpg")
    failure_of("a.jpg", max_bytes=1)
    failure_of("fifo")
    list(source("."))
    fail_on_read(monkeypatch, errno.EIO, times=3)
    failure_of("a.jpg")
    assert open_descriptors() == before


def open_descriptors() -> set[Path]:
    return set(Path("/dev/fd").iterdir())


def grow_on_read(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Append to a.jpg after each of the first `times` reads, like another writer."""
    read_for_real, left = os.read, [b" and more"] * times

    def read_and_grow(fd: int, size: int) -> bytes:
        data = read_for_real(fd, size)
        if left:
            with Path("a.jpg").open("ab") as other:
                other.write(left.pop())
        return data

    monkeypatch.setattr(os, "read", read_and_grow)


def fail_on_read(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> None:
    """Make the first `times` reads fail with this errno, since no real disk fails on request."""
    left = [OSError(code, os.strerror(code))] * times
    read_for_real = os.read

    def fail(fd: int, size: int) -> bytes:
        if left:
            raise left.pop()
        return read_for_real(fd, size)

    monkeypatch.setattr(os, "read", fail)


def test_what_is_no_file_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH that is a device, a FIFO or a file of the kernel fails unopened: to open some does something."""
    os.mkfifo("pipe")
    opened: list[object] = []
    real = os.open

    def noted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened.append(path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noted)
    for path in ("pipe", "/dev/null", "/proc/self/status"):
        if Path(path).exists():
            assert failure_of(path).kind == "not_a_file"
    assert not opened
