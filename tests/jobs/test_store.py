"""The store in a folder, and at URLs whose file systems need no server."""

import errno
import io
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from photo_tree import unprivileged
from written_results import start_python

from vlmbatch.config.spec import redact_place
from vlmbatch.errors import ConfigError, ImageError, MissingDependencyError, StoreAwayError
from vlmbatch.jobs.job import ImageJob, JobImage
from vlmbatch.jobs.store import ROOT_FILE, Store

DAY = "2026-12-01"
COPY = f"jobs/{DAY}/a1/0"


class WithFolders(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files as on SFTP, in a local folder: a folder must be there before its files."""

    protocol = "withfolders"
    local = LocalFileSystem()

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return Path(path).open(mode)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        self.local.mkdir(path, create_parents=create_parents)

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        return self.local.ls(path, detail=detail)

    def info(self, path: str, **options: Any) -> Any:
        return self.local.info(path)

    def rm_file(self, path: str) -> None:
        Path(path).unlink()

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        self.local.rm(path, recursive=recursive)


class Far(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A server that is away, and repeats the password in its error."""

    protocol = "far"

    def cat_file(self, path: str, **options: Any) -> bytes:
        raise OSError("no route for far://me:topsecret99@host")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of a store that does not exist yet."""
    tmp_path.chmod(0o755)
    return tmp_path / "store"


def failure_of(call: Callable[[], object]) -> ImageError:
    """The ImageError that the call raises."""
    with pytest.raises(ImageError) as caught:
        call()
    return caught.value


def names_in(folder: Path) -> list[str]:
    """The names in this folder, in order."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_what_is_put_is_read_until_it_is_deleted(kind: str, place: Path) -> None:
    """Copies and files are read whole or in parts, have their size, are listed by day, and can be deleted."""
    store = Store.open(str(place) if kind == "folder" else f"memory://{place}")
    store.put(COPY, b"12345")
    store.put(f"jobs/{DAY}/a1/1", b"")
    assert store.put_file("files/file-1.jsonl", io.BytesIO(b"x" * 3_000_000)) == 3_000_000
    assert store.read(COPY, max_bytes=5) == b"12345"
    assert store.read(f"jobs/{DAY}/a1/1", max_bytes=5) == b""
    assert failure_of(lambda: store.read(COPY, max_bytes=4)).kind == "too_large"
    with store.open_read("files/file-1.jsonl") as file:
        assert len(file.read(1000)) == 1000
        assert len(file.read()) == 2_999_000
    assert [store.size(key) for key in (COPY, "files/file-1.jsonl", "files/none")] == [5, 3_000_000, None]
    assert store.days() == [DAY]
    assert sorted(store.jobs_of(DAY)) == [("a1", COPY), ("a1", f"jobs/{DAY}/a1/1")]
    assert Store.open(str(place) if kind == "folder" else f"memory://{place}").identity == store.identity
    for key in (COPY, COPY, f"jobs/{DAY}/a1/1", "files/file-1.jsonl"):  # what is gone can be deleted, too
        store.delete(key)
    store.delete_day_if_empty(DAY)
    assert store.days() == []
    for read in (lambda: store.read(COPY, max_bytes=5), lambda: store.open_read(COPY)):
        failure = failure_of(read)
        assert (failure.kind, failure.retryable) == ("vanished", False)
    store.check()


@pytest.mark.parametrize(
    "key", ["files/../../x", f"jobs/{DAY}/../0", "/etc/passwd", "x", f"{COPY}\n", "at/x/../y"]
)
@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_no_other_key_reaches_a_file(key: str, kind: str, place: Path) -> None:
    """Each method refuses a key that is not one of the store, and nothing outside the folder is made."""
    store = Store.open(str(place) if kind == "folder" else f"memory://{place}")
    for call in (
        lambda: store.put(key, b"x"),
        lambda: store.put_file(key, io.BytesIO(b"x")),
        lambda: store.read(key, max_bytes=9),
        lambda: store.open_read(key),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.delete_day_if_empty(key),
        lambda: list(store.jobs_of(key)),
    ):
        assert failure_of(call).kind == "unreadable"
    assert [path.name for path in place.parent.iterdir()] == (["store"] if kind == "folder" else [])


@pytest.mark.parametrize(
    "key", ["at/a\0b", "at/a\\b", "at//a", "at/", "at/.", f"at/{ROOT_FILE}/..", "files/.hidden"]
)
def test_unsafe_names_are_no_keys(key: str, place: Path) -> None:
    """A NUL, a backslash, an empty part and a hidden file of the store itself are refused."""
    assert failure_of(lambda: Store.open(str(place)).read(key, max_bytes=9)).kind == "unreadable"


def test_files_of_the_user_are_read_where_they_are(place: Path) -> None:
    """A file of any name below the folder has a key, also in the JSON of a job, and is never deleted."""
    store = Store.open(str(place))
    names = ["a b.jpg", "ü/ö.jpg", "line\nbreak.jpg", "12:30.jpg", "..a.jpg", os.fsdecode(b"\xff\xfe.jpg")]
    for name in names:
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture")
        key = store.key_of(path)
        assert key == f"at/{name}"
        job = ImageJob(id="a", image_id=name, images=(JobImage(key=key),), question="d" * 32, keep_s=1)
        (image,) = ImageJob.from_data(
            "a", zlib.compress(json.dumps(["", None, [], job.payload()]).encode())
        ).images
        assert store.read(image.key, max_bytes=9) == b"picture"
        store.delete(image.key)
        assert path.exists()
    assert Store.open(f"memory://{place}").key_of(place / "a b.jpg") is None


def test_paths_without_a_key(place: Path) -> None:
    """A file elsewhere, a link that leads out, the folder itself, and a backslash or a NUL have no key."""
    store = Store.open(str(place))
    (place.parent / "outside.jpg").write_bytes(b"x")
    (place / "out.jpg").symlink_to(place.parent / "outside.jpg")
    (place / "out").symlink_to(place.parent)
    (place / "in.jpg").write_bytes(b"x")
    (place / "link.jpg").symlink_to("in.jpg")
    without = ["out.jpg", "out/outside.jpg", "../outside.jpg", ".", "a\\b", "a\0b", "/etc/passwd"]
    assert [store.key_of(place / name) for name in without] == [None] * len(without)
    assert store.key_of(place / "link.jpg") == "at/in.jpg"


def test_links_are_not_followed(place: Path) -> None:
    """A link in the place of a file or folder leads nowhere: nothing behind it is read or changed."""
    store = Store.open(str(place))
    outside = place.parent / "outside"
    (outside / DAY / "a1").mkdir(parents=True)
    secret = outside / DAY / "a1" / "0"
    secret.write_bytes(b"secret")
    (place / ".vlmbatch").mkdir()
    (place / ".vlmbatch" / "jobs").symlink_to(outside)
    (place / "file.jpg").symlink_to(secret)
    calls: list[Callable[[], object]] = [lambda: store.put(COPY, b"x"), lambda: store.delete(COPY)]
    for key in (COPY, f"at/jobs/{DAY}/a1/0", "at/file.jpg"):
        calls += [partial(store.read, key, max_bytes=9), partial(store.open_read, key)]
    assert {failure_of(call).kind for call in calls} <= {"vanished", "not_a_file"}
    assert store.size("at/file.jpg") is None
    assert failure_of(lambda: store.days()).kind == "not_a_file"
    assert secret.read_bytes() == b"secret"
    assert names_in(secret.parent) == ["0"]


def test_what_is_no_file_never_blocks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO, a socket and a folder fail as `not_a_file` at once, also as the root file."""
    store = Store.open(str(place))
    monkeypatch.chdir(place)  # the path of a socket must be short
    os.mkfifo("fifo")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
    assert failure_of(lambda: store.read("at/socket", max_bytes=9)).kind == "not_a_file"
    for key in ("at/fifo", "at/folder"):
        assert failure_of(partial(store.read, key, max_bytes=9)).kind == "not_a_file"
        assert failure_of(partial(store.open_read, key)).kind == "not_a_file"
        assert store.size(key) is None
    (place / ROOT_FILE).unlink()
    os.mkfifo(place / ROOT_FILE)
    with pytest.raises(StoreAwayError, match="cannot be read; check its disk"):
        store.check()
    with pytest.raises(ConfigError, match=f"{ROOT_FILE} cannot be read"):
        Store.open(str(place))


def test_files_and_folders_are_private(place: Path) -> None:
    """Only the user can read the files of the store and list its folders, whatever the umask."""
    before = os.umask(0)
    try:
        Store.open(str(place)).put(COPY, b"x")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (place, *place.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_a_full_disk_leaves_the_old_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the disk refuses changes nothing, leaves nothing, and the message says what to do."""
    store = Store.open(str(place))
    store.put(COPY, b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # no disk is full on request
    for write in (lambda: store.put(COPY, b"new"), lambda: store.put_file(COPY, io.BytesIO(b"new"))):
        with pytest.raises(StoreAwayError, match="no space left on device; free space on its disk"):
            write()
    assert store.read(COPY, max_bytes=9) == b"old"
    assert names_in(place / ".vlmbatch" / "jobs" / DAY / "a1") == ["0"]


def test_a_source_that_fails_stores_nothing(place: Path) -> None:
    """put_file() of a source that breaks off in the middle stores no part of it, in a folder or at a URL."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "Input/output error")
            return super().read(10)

    for store in (Store.open(str(place)), Store.open(f"memory://{place}")):
        with pytest.raises(StoreAwayError):
            store.put_file("files/a", Broken(b"x" * 100))
        assert store.size("files/a") is None


def test_an_absent_store_is_noticed(place: Path) -> None:
    """Without its root file, or with another one, nothing is read or written: its disk may be away."""
    store = Store.open(str(place))
    store.put(COPY, b"x")
    other = Store.open(str(place.parent / "other"))
    place.rename(place.parent / "unmounted")
    place.mkdir()
    for call in (
        store.check,
        lambda: store.read(COPY, max_bytes=9),
        lambda: store.open_read(COPY),
        lambda: store.put(COPY, b"y"),
    ):
        with pytest.raises(StoreAwayError, match="cannot be found any more; mount its disk"):
            call()
    assert list(place.iterdir()) == []
    (place / ROOT_FILE).write_bytes((place.parent / "other" / ROOT_FILE).read_bytes())
    with pytest.raises(StoreAwayError, match="cannot be found any more"):
        store.check()
    assert Store.open(str(place)).identity == other.identity


def test_processes_that_start_at_once_have_one_store(place: Path) -> None:
    """Processes that make a store at the same time all get the same id."""
    script = (
        "import sys; from vlmbatch.jobs.store import Store; sys.stdin.read(); "
        "print(Store.open(sys.argv[1]).identity)"
    )
    running = [start_python(script, place) for _ in range(3)]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    printed = []
    for process in running:
        assert process.stdout is not None
        printed.append(process.stdout.read().strip())
        process.stdout.close()
        assert process.wait() == 0
    assert len(set(printed)) == 1
    assert names_in(place) == [ROOT_FILE]


def test_threads_that_start_at_once_have_one_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that make a store in memory at the same time all get the same id."""
    at_once, real = threading.Barrier(4), MemoryFileSystem.exists

    def exists(self: MemoryFileSystem, path: str, **options: Any) -> bool:
        found = bool(real(self, path, **options))
        time.sleep(0.02)  # lets another thread come between the look and the write
        return found

    def start(_: int) -> str:
        at_once.wait()
        return Store.open(f"memory://{place}").identity

    monkeypatch.setattr(MemoryFileSystem, "exists", exists)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1


def test_a_file_system_without_hard_links(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is made where os.link does not work, and a store that another process has made is kept."""

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refuse)
    store = Store.open(str(place))
    store._make_root_file(b"another")
    assert Store.open(str(place)).identity == store.identity
    assert names_in(place) == [ROOT_FILE]


def test_two_workers_share_a_day(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another worker deletes just before a file is put into it is made again."""
    store = Store.open(str(place))
    real, left = os.open, [1, 2]

    def open_late(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and left:
            left.pop()
            Path(path).parent.rmdir()
            Path(path).parent.parent.rmdir()
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_late)
    store.put(COPY, b"x")
    assert left == []
    assert store.read(COPY, max_bytes=1) == b"x"


def test_only_empty_days_are_deleted(place: Path) -> None:
    """Deleting a day takes what a crash has left, and no copy; other entries are no days and no copies."""
    store = Store.open(str(place))
    store.put(COPY, b"x")
    (place / ".vlmbatch" / "jobs" / DAY / "a1" / ".0.crashed").write_bytes(b"half")
    (place / ".vlmbatch" / "jobs" / DAY / "a1" / "notes.txt").write_bytes(b"mine")
    (place / ".vlmbatch" / "jobs" / "holiday").mkdir()
    (place / ".vlmbatch" / "jobs" / "2026-12-02" / "b" / "c").mkdir(parents=True)
    (place / ".vlmbatch" / "jobs" / "2026-12-03" / "d").mkdir(parents=True)
    assert store.days() == [DAY, "2026-12-02", "2026-12-03"]
    for day in store.days():
        store.delete_day_if_empty(day)
    assert store.days() == [DAY, "2026-12-02"]
    assert list(store.jobs_of(DAY)) == [("a1", COPY)]
    assert not (place / ".vlmbatch" / "jobs" / DAY / "a1" / ".0.crashed").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("", "is no folder; write a folder"),
        ("a\0b", "is no folder; write a folder"),
        ("nosuch://bucket/x", "--store nosuch://bucket/x is not a URL for a store; write a folder"),
        ("local:///tmp/x", "is not a URL for a store"),
        ("simplecache::memory://x", "is not a URL for a store"),
        ("memory://", "is not a URL for a store"),
        ("file/below", "is a file, or below one; name a folder"),
        ("file", "is a file, or below one; name a folder"),
        ("foreign", "is not from vlmbatch; delete this file"),
        ("withfolders://{here}/none", "cannot be written: make its bucket or folder"),
    ],
)
def test_wrong_places(wrong: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that can be no store is a ConfigError that says what to write, and no file is changed."""
    monkeypatch.chdir(place.parent)
    Path("file").write_bytes(b"x")
    Path("foreign").mkdir()
    Path("foreign", ROOT_FILE).write_bytes(b'{"another": "program"}')
    fsspec.register_implementation("withfolders", WithFolders, clobber=True)
    with pytest.raises(ConfigError, match=message):
        Store.open(wrong.replace("{here}", str(place.parent)))
    assert names_in(Path()) == ["file", "foreign"]


def test_a_store_is_made_only_on_request(place: Path) -> None:
    """Without `create`, a missing store is a ConfigError, and the folder is not made."""
    with pytest.raises(ConfigError, match=r"there is no store at .*; correct --store"):
        Store.open(str(place), create=False)
    assert not place.exists()
    assert Store.open(f"file://{place}").identity == Store.open(str(place), create=False).identity


def test_no_permission() -> None:
    """A folder that cannot be made, written or read is a ConfigError; one that is lost later is away."""
    with tempfile.TemporaryDirectory() as name:  # other users cannot enter pytest's folders
        Path(name).chmod(0o755)
        check_permissions(Path(name) / "store")


def check_permissions(place: Path) -> None:
    """Open a store, and folders next to it, as another user."""
    place.mkdir(mode=0o755)
    readable = Store.open(str(place))
    (place / ROOT_FILE).chmod(0o644)
    made = place.parent / "empty"
    made.mkdir(mode=0o755)
    with unprivileged():
        for path, words in ((place / "below", "cannot be made"), (made, "cannot be written")):
            with pytest.raises(ConfigError, match=f"{words}: permission denied; correct its permissions"):
                Store.open(str(path))
        with pytest.raises(StoreAwayError, match="permission denied; check its disk and its permissions"):
            readable.put(COPY, b"x")
    (place / ROOT_FILE).chmod(0)
    with unprivileged():
        with pytest.raises(ConfigError, match="correct its permissions"):
            Store.open(str(place))
        with pytest.raises(StoreAwayError):
            readable.check()


def test_folders_are_made_where_a_file_system_needs_them(place: Path) -> None:
    """At a URL whose file system has folders, such as SFTP, those of a key are made, and then deleted."""
    place.mkdir()
    fsspec.register_implementation("withfolders", WithFolders, clobber=True)
    url = f"withfolders://{place}"
    store = Store.open(url)
    store.put(COPY, b"x")
    assert store.put_file("files/a", io.BytesIO(b"yy")) == 2
    assert list(store.jobs_of(DAY)) == [("a1", COPY)]
    store.delete(COPY)
    store.delete_day_if_empty(DAY)
    assert names_in(place) == ["files", "jobs", ROOT_FILE]
    assert store.days() == []


def test_secrets_are_not_shown() -> None:
    """No message shows the password of a URL, also not in the words of a server or for a wrong URL."""
    fsspec.register_implementation("far", Far, clobber=True)
    with pytest.raises(
        StoreAwayError, match="the store at far://host/x cannot be used: no route for"
    ) as caught:
        Store.open("far://me:topsecret99@host/x?token=hidden-token")
    assert "topsecret99" not in str(caught.value)
    for url in (
        "x://me:a/topsecret99@h/p",
        "x://me:a?topsecret99@h",
        "x://me:a@topsecret99@h",
        "x://h?topsecret99",
    ):
        assert "topsecret99" not in redact_place(url)


def test_a_missing_package_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of a scheme, or fsspec, the error names it; a folder needs neither."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # type: ignore[attr-defined]
    with pytest.raises(
        MissingDependencyError,
        match=r"--store s3://b/p needs another package; install it with pip .*: Install s3fs",
    ):
        Store.open("s3://b/p")
    monkeypatch.delitem(sys.modules, "vlmbatch.jobs.remote_store", raising=False)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vlmbatch\[queue\]'"):
        Store.open("memory://x")
    Store.open(str(place)).check()
