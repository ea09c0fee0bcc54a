"""Folders and files that a link replaces during a run, and the links that are followed."""

import os
import resource
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from photo_tree import put, source

from vlmbatch import system
from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ImageError
from vlmbatch.events import SourceProblem
from vlmbatch.images import ImageRef, Walked
from vlmbatch.sources import DirectorySource
from vlmbatch.sources.opening import LONGEST, Folders

SECRET = b"\xff\xd8\xff secret"


@pytest.fixture(autouse=True, params=["descriptors", "paths"])
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The current folder, to which ids are relative. Each test also runs with paths, as on Windows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(system, "OPENS_IN_FOLDERS", request.param == "descriptors")
    put("elsewhere/1.jpg", "elsewhere/b/1.jpg", "elsewhere/b/c/1.jpg", "elsewhere/b/noname", data=SECRET)
    return tmp_path


def replace(path: str, target: str) -> None:
    """Replace a file or a folder by a link."""
    Path(path).rename(f"{path}.old")
    Path(path).symlink_to(Path(target).absolute())


@pytest.mark.parametrize("target", ["elsewhere", "elsewhere/b"])
@pytest.mark.parametrize("typed", ["p", "../{}/p", "{}/p", "link"])
def test_a_replaced_folder_is_reported_and_not_entered(here: Path, typed: str, target: str) -> None:
    """A folder that a link replaces before its turn is reported, and nothing behind the link is found."""
    put("p/a/1.jpg", "p/b/c/1.jpg")
    Path("link").symlink_to("p")
    typed = typed.format(here if typed.startswith("{") else here.name)
    problems: list[SourceProblem] = []
    refs = iter(DirectorySource((typed,), InputOptions(), problems.append))
    assert next(refs).id == f"{typed}/a/1.jpg"
    replace("p/b", target)
    assert [ref.id for ref in refs] == []
    problem = SourceProblem(path=f"{typed}/b", message="cannot be listed: a link has replaced it")
    assert problems == [problem]


def test_a_folder_above_the_next_one_may_be_replaced() -> None:
    """If a link replaces a folder that is being walked, nothing behind the link is found or read."""
    put("p/m/a/1.jpg", "p/m/b/1.jpg", "p/m/b/c/1.jpg", "p/z.jpg")
    photos = source("p")
    refs = iter(photos)
    assert next(refs).id == "p/m/a/1.jpg"
    replace("p/m", "elsewhere")
    *replaced, after = refs
    found = ["p/m/b/1.jpg", "p/m/b/c/1.jpg"] if system.OPENS_IN_FOLDERS else []
    assert [ref.id for ref in replaced] == found
    assert after.id == "p/z.jpg"
    for ref in replaced:
        with pytest.raises(ImageError, match="a link replaced this file"):
            photos.read(ref)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("p", "elsewhere"),
        ("p/b", "elsewhere/b"),
        ("p/b/c", "elsewhere/b/c"),
        ("p/b/c/1.jpg", "elsewhere/1.jpg"),
    ],
)
def test_a_replaced_file_is_not_read(path: str, target: str) -> None:
    """A file is not read, but tried again, if a link replaced it or a folder above it after it was found."""
    put("p/b/c/1.jpg")
    photos = source(".", include=("p/*",))
    (ref,) = photos
    replace(path, target)
    with pytest.raises(ImageError, match=r"^a link replaced this file, .*; run again$") as caught:
        photos.read(ref)
    assert (caught.value.kind, caught.value.retryable) == ("vanished", True)


def test_the_head_of_a_replaced_file_is_not_read() -> None:
    """A file without an extension is not recognised through a link that replaces its folder."""
    put("p/b/1.jpg", "p/b/noname", data=b"\xff\xd8\xff")
    problems: list[SourceProblem] = []
    refs = iter(DirectorySource(("p",), InputOptions(), problems.append))
    assert next(refs).id == "p/b/1.jpg"
    replace("p/b", "elsewhere/b")
    assert list(refs) == []
    assert problems == [SourceProblem(path="p/b/noname", message="cannot be read: a link has replaced it")]


@pytest.mark.parametrize("typed", ["p", ".", "link", "../{}/p", "{}", "{}/link", "/"])
def test_links_that_were_there_are_followed(here: Path, typed: str) -> None:
    """A linked file out of the tree is read, and so are all files below a PATH that is a link."""
    put("p/b/1.jpg")
    Path("p/b/2.jpg").symlink_to("../../elsewhere/1.jpg")
    Path("link").symlink_to("p")
    typed = typed.format(here if typed.startswith("{") else here.name)
    # the walk of a whole system would take too long, so only the way to this folder is open
    only = {"include": (f"{here}/p/*",), "exclude": tuple(others(here))} if typed == "/" else {}
    photos = source(typed, **{"exclude": ("elsewhere",), **only})
    data = {Path(ref.id).name: photos.read(ref).data for ref in photos}
    assert data == {"1.jpg": Path("p/b/1.jpg").read_bytes(), "2.jpg": SECRET}


def others(here: Path) -> list[str]:
    """All entries except the folders that lead to `here`, and except p in it."""
    way = [*here.parents[::-1], here, here / "p"]
    return [str(entry) for folder, step in pairwise(way) for entry in folder.iterdir() if entry != step]


def test_a_deep_tree_needs_few_descriptors() -> None:
    """A tree of three hundred levels is walked and read with twenty descriptors."""
    deep = "d/" * 300 + "a.jpg"
    put(deep)
    photos = source("d")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + 20, usual[1]))  # noqa: PTH208
    try:
        (ref,) = photos
        assert photos.read(ref).data == Path(deep).read_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_a_tree_deeper_than_a_path_may_be_ends(here: Path) -> None:
    """Folders whose path is longer than the system allows are reported, and the walk ends."""
    top = os.open(".", os.O_RDONLY)
    levels = LONGEST // 101 + 2
    folder = os.dup(top)
    for _ in range(levels):
        os.mkdir("d" * 100, dir_fd=folder)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    problems: list[SourceProblem] = []
    assert list(DirectorySource(("d" * 100,), InputOptions(), problems.append)) == []
    assert [problem.message for problem in problems] == ["cannot be listed: file name too long"]
    os.close(folder)
    os.close(top)


def test_a_deep_tree_needs_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is opened in one step from the one above it, so a deep tree costs no square of its depth."""
    put(f"p{'/d' * 200}/1.jpg")
    names: list[object] = []
    real = os.open

    def counted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        names.append(path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", counted)
    assert len(list(source("p"))) == 1
    assert len(names) < 3 * 200


def test_the_root_may_have_two_slashes(here: Path) -> None:
    """Below the PATH //, which is the root of the disk, folders and files are found by their names."""
    put("p/1.jpg", data=SECRET)
    file = str(here / "p/1.jpg")
    with closing(Folders("//")) as folders, folders.opened(str(here / "p")) as folder:
        assert os.listdir(folder) == ["1.jpg"]  # noqa: PTH208  # a Path knows no open folder
    ref = ImageRef(id=file, uri=file, walked=Walked(root="//", is_link=False))
    assert source("p").read(ref).data == SECRET
