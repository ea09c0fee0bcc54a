"""Walking folders that are larger than one chunk: order, completeness, open descriptors."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_tree import put

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ResourceError
from vlmbatch.events import SourceProblem
from vlmbatch.sources.globs import Globs
from vlmbatch.sources.own_files import OwnFiles
from vlmbatch.sources.walk import CHUNK, Walk

NAMES = st.sampled_from([b"a.jpg", b"B.jpg", b"b", b"b-.jpg", b"b.png", b"\xc3\xa9.jpg", b"\x80.jpg", b"z"])
TREES = st.recursive(st.none(), lambda below: st.dictionaries(NAMES, below), max_leaves=30)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test; ids are relative to it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def walk(path: str, chunk: int, problems: list[SourceProblem] | None = None) -> Iterator[str]:
    told = [] if problems is None else problems
    images = Walk(Globs(InputOptions()), lambda kind: None, told.append, own=OwnFiles(), chunk=chunk).images(
        path
    )
    return (image.id for image in images)


def grow(place: bytes, tree: dict[bytes, Any]) -> Iterator[bytes]:
    """Make a tree of folders and images, and yield the images."""
    for name, below in tree.items():
        path = place + b"/" + name
        if below is None:
            Path(os.fsdecode(path)).write_bytes(b"\xff\xd8\xff")
            yield path
        else:
            Path(os.fsdecode(path)).mkdir()
            yield from grow(path, below)


def descriptors_of(folder: str) -> list[int]:
    """The descriptors of this process that are open on a folder."""
    found, wanted = [], Path(folder).stat()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # names, and not paths that point elsewhere
        try:
            if os.path.samestat(os.fstat(int(name)), wanted):
                found.append(int(name))
        except OSError:  # the descriptor of this listing itself
            continue
    return found


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(NAMES, TREES), chunk=st.integers(1, 9))
def test_nothing_is_lost_or_duplicated(tree: dict[bytes, Any], chunk: int) -> None:
    """In any tree and with any size of chunk, each image comes once."""
    with tempfile.TemporaryDirectory() as place:
        try:
            expected = list(grow(os.fsencode(place), tree))
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        assert sorted(map(os.fsencode, walk(place, chunk))) == sorted(expected)
        assert list(map(os.fsencode, walk(place, CHUNK))) == sorted(expected)


def test_a_larger_folder_comes_in_sorted_chunks() -> None:
    """A large folder comes in sorted chunks, and a folder of one chunk is completely sorted."""
    put(*(f"p/{n * 7 % 25:02}.jpg" for n in range(25)))
    found = list(walk("p", 10))
    for chunk in found[:10], found[10:20], found[20:]:
        assert chunk == sorted(chunk)
    assert sorted(found) == list(walk("p", 25)) == list(walk("p", CHUNK))


def test_a_large_folder_is_not_read_to_its_end_first() -> None:
    """Images that are deleted after the first one was yielded are no longer listed."""
    names = [f"{n:04}{'x' * 200}.jpg" for n in range(2000)]  # far more than the system reads ahead
    put(*(f"p/{name}" for name in names))
    images = walk("p", 10)
    first = next(images)
    shutil.rmtree("p")
    assert first not in (rest := list(images))
    assert len(rest) < 1000


def test_only_a_larger_folder_stays_open() -> None:
    """A folder of one chunk is closed before its first image comes, a larger one after its last."""
    put(*(f"p/{n}.jpg" for n in range(10)))
    whole, cut = walk("p", 11), walk("p", 3)
    next(whole)
    assert descriptors_of("p") == []
    next(cut)
    assert descriptors_of("p")
    assert len(list(cut)) == 9
    assert descriptors_of("p") == []


def test_an_abandoned_walk_closes_what_it_holds_open() -> None:
    """Closing the iterator of a walk closes its open folders at every depth."""
    put(*(f"p/p/p/{n}.jpg" for n in range(10)), *(f"p/p/q{n}.jpg" for n in range(10)))
    images = walk("p/p", 1)
    while not next(images).startswith("p/p/p/"):
        pass
    assert descriptors_of("p/p/p")
    images.close()  # type: ignore[attr-defined]  # it is a generator
    assert descriptors_of("p/p/p") == descriptors_of("p/p") == []


def test_an_error_in_the_middle_of_a_folder_is_reported() -> None:
    """An error in the middle of a folder is reported; entries listed before it come, and the walk goes on."""
    put(*(f"p/a/{n:04}{'x' * 200}.jpg" for n in range(2000)), "p/b.jpg")
    problems: list[SourceProblem] = []
    images = walk("p", 10, problems)
    first = [next(images) for _ in range(5)]
    with open("p/b.jpg", "rb") as other:
        for fd in descriptors_of("p/a"):
            os.dup2(other.fileno(), fd)
    rest = list(images)
    assert rest[-1] == "p/b.jpg"
    assert 5 < len(rest) < 1000
    assert len({*first, *rest}) == len(first) + len(rest)
    assert problems == [SourceProblem(path="p/a", message="cannot be listed: not a directory")]


def test_running_out_of_descriptors_ends_the_walk() -> None:
    """A lack of descriptors is a ResourceError and not reported as a folder that cannot be listed."""
    put("p/a.jpg")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    problems: list[SourceProblem] = []
    try:
        with pytest.raises(ResourceError, match=r"too many open files.*ulimit -n"):
            list(walk("p", 10, problems))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert problems == []
