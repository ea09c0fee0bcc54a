"""Reading one file, whatever it is and whatever happens to it meanwhile."""

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
    """A folder to stand in; ids are as typed from there."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_whole_file_and_its_stamp() -> None:
    """Reading gives all bytes, and the stamp that `stamp` gives without reading."""
    put("a.jpg", data=b"x" * 300_000)
    photos = source("a.jpg")
    (ref,) = photos
    image = photos.read(ref)
    assert image.data == b"x" * 300_000
    assert image.stamp == photos.stamp(ref)
    assert image.stamp.bytes == 300_000
    assert image.stamp.mtime == Path("a.jpg").stat().st_mtime


def test_vanished() -> None:
    """A file that went after it was listed is a failure that a later run asks again."""
    put("p/a.jpg")
    photos = source("p")
    (ref,) = photos
    Path("p/a.jpg").unlink()
    failure = failure_of("p/a.jpg")
    assert (failure.kind, failure.retryable) == ("vanished", True)
    assert photos.stamp(ref) is None


@pytest.mark.parametrize("path", ["p/a.jpg/b.jpg", "nul\0.jpg"])
def test_paths_that_no_file_can_have(path: str) -> None:
    """A path below a file, or with a NUL in it, is one where nothing is."""
    put("p/a.jpg")
    assert failure_of(path).kind == "vanished"
    assert source("p").stamp(ImageRef(id=path, uri=path)) is None


def test_permission_denied() -> None:
    """A file that may not be read is told so, and asked again by a later run."""
    put("a.jpg")
    Path("a.jpg").chmod(0)
    with unprivileged():
        failure = failure_of("a.jpg")
    assert (failure.kind, failure.retryable) == ("unreadable", True)


def test_too_large() -> None:
    """A file above --max-bytes is refused by its size, and one of just that size is read."""
    put("a.jpg", data=b"12345")
    failure = failure_of("a.jpg", max_bytes=4)
    assert (failure.kind, failure.retryable) == ("too_large", False)
    assert "--max-bytes" in str(failure)
    assert read("a.jpg", max_bytes=5).data == b"12345"


def test_what_is_no_file() -> None:
    """A folder, FIFO, socket, device and a link to itself, named as PATH, fail without blocking."""
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("self").symlink_to("self")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        kinds = {path: failure_of(path) for path in ("folder", "fifo", "socket", "/dev/zero", "self")}
    assert {failure.kind for failure in kinds.values()} == {"not_a_file"}
    assert "a folder" in str(kinds["folder"])
    assert "a FIFO" in str(kinds["fifo"])


def test_a_head_is_read_of_files_only() -> None:
    """The first bytes of a file are 64 at most, and none of a FIFO or a device that took its place."""
    put("a", data=b"x" * 100)
    os.mkfifo("fifo")
    assert [read_head(path) for path in ("a", "fifo", "/dev/zero")] == [b"x" * 64, b"", b""]


def test_a_name_too_long() -> None:
    """A path longer than the system takes is a failure of that image."""
    assert failure_of("x" * 5000).kind == "unreadable"


def test_a_file_that_grows_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grew while it was read is read once more, and then whole."""
    put("a.jpg", data=b"half")
    grow_on_read(monkeypatch, times=1)
    assert read("a.jpg").data == b"half and more"


def test_a_file_that_keeps_growing_fails_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is still being written to is left for a later run."""
    put("a.jpg", data=b"half")
    grow_on_read(monkeypatch, times=100)
    failure = failure_of("a.jpg")
    assert (failure.kind, failure.retryable) == ("io_error", True)
    assert "being written to" in str(failure)
    assert Path("a.jpg").stat().st_size < 100  # it was read twice, not until it ended


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_stumbling_disk_is_asked_three_times(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two errors of a network file system are got over; a third makes the image fail for now."""
    put("a.jpg", data=b"data")
    fail_on_read(monkeypatch, code, times=2)
    assert read("a.jpg").data == b"data"
    fail_on_read(monkeypatch, code, times=3)
    failure = failure_of("a.jpg")
    assert (failure.kind, failure.retryable) == ("io_error", True)


def test_running_out_of_descriptors_is_no_failure_of_the_image() -> None:
    """Too many open files is a trouble of the run, and says how to allow more."""
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
    """Success and every failure close what was opened."""
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
    """Let another writer append to a.jpg in between the reads of it."""
    read_for_real, left = os.read, [b" and more"] * times

    def read_and_grow(fd: int, size: int) -> bytes:
        data = read_for_real(fd, size)
        if left:
            with Path("a.jpg").open("ab") as other:
                other.write(left.pop())
        return data

    monkeypatch.setattr(os, "read", read_and_grow)


def fail_on_read(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> None:
    """Let the system fail with this errno, as no disk can be made to."""
    left = [OSError(code, os.strerror(code))] * times
    read_for_real = os.read

    def fail(fd: int, size: int) -> bytes:
        if left:
            raise left.pop()
        return read_for_real(fd, size)

    monkeypatch.setattr(os, "read", fail)
