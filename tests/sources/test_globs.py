"""The images of a tree that --include and --exclude select."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from photo_tree import ids, put, source, unprivileged

from vlmbatch.config.groups import InputOptions
from vlmbatch.sources.globs import Globs, normalise

TREE = ("p/a.jpg", "p/a.png", "p/cats/b.jpg", "p/thumbs/c.jpg", "p/x/thumbs/d.jpg", "thumbs/e.jpg")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test; ids are relative to it."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (("*.png",), ["p/a.png"]),
        (("p/*.jpg",), ["p/a.jpg", "p/cats/b.jpg", "p/thumbs/c.jpg", "p/x/thumbs/d.jpg"]),
        (
            ("**/*.jpg",),
            ["p/a.jpg", "p/cats/b.jpg", "p/thumbs/c.jpg", "p/x/thumbs/d.jpg", "thumbs/e.jpg"],
        ),
        (("./p/cats/*", "*.png"), ["p/a.png", "p/cats/b.jpg"]),
        (("p/**/d.jpg",), ["p/x/thumbs/d.jpg"]),
        (("p/**/a.jpg",), ["p/a.jpg"]),
        (("p*",), []),
        (("[ab].jpg",), ["p/a.jpg", "p/cats/b.jpg"]),
    ],
)
def test_include(include: tuple[str, ...], expected: list[str]) -> None:
    """A glob with a slash is matched against the path, one without against the name; one match is enough."""
    put(*TREE)
    assert ids(".", include=include) == expected


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        (("thumbs",), ["p/a.jpg", "p/a.png", "p/cats/b.jpg"]),
        (("thumbs/",), ["p/a.jpg", "p/a.png", "p/cats/b.jpg"]),
        (("**/thumbs/*",), ["p/a.jpg", "p/a.png", "p/cats/b.jpg"]),
        (("**/thumbs/**",), ["p/a.jpg", "p/a.png", "p/cats/b.jpg"]),
        (("p/thumbs",), ["p/a.jpg", "p/a.png", "p/cats/b.jpg", "p/x/thumbs/d.jpg", "thumbs/e.jpg"]),
        (("*.jpg",), ["p/a.png"]),
        (("p",), ["thumbs/e.jpg"]),
    ],
)
def test_exclude(exclude: tuple[str, ...], expected: list[str]) -> None:
    """An excluded image or folder is left out."""
    put(*TREE)
    assert ids(".", exclude=exclude) == expected


def test_exclude_wins_and_names_files_too() -> None:
    """A file that is both included and excluded is left out, even if it is a PATH."""
    put("a.jpg", "b.jpg")
    assert ids("a.jpg", "b.jpg", include=("*.jpg",), exclude=("b*",)) == ["a.jpg"]


@pytest.mark.parametrize("glob", ["closed", "closed/", "**/closed/*", "p/closed/**"])
def test_an_excluded_folder_is_not_listed(glob: str) -> None:
    """An excluded folder that cannot be listed causes no problem report."""
    put("p/a.jpg", "p/closed/b.jpg")
    Path("p/closed").chmod(0)
    photos = source("p", exclude=(glob,))
    try:
        with unprivileged():
            assert [ref.id for ref in photos] == ["p/a.jpg"]
    finally:
        Path("p/closed").chmod(0o755)
    assert photos.unreadable == 0


@given(
    glob=st.text("ab*?/[]!", max_size=8),
    stars=st.sampled_from(["/*", "/**"]),
    folder=st.from_regex(r"[ab]+(/[ab]+)?", fullmatch=True),
    name=st.text("ab", min_size=1),
)
def test_pruning_loses_nothing(glob: str, stars: str, folder: str, name: str) -> None:
    """A folder that is not listed because of "x/*" contains no image that "x/*" would include."""
    globs = Globs(InputOptions(exclude=(glob + stars,)))
    assert globs.enter(folder) or not globs.take(f"{folder}/{name}")


@given(st.lists(st.sampled_from(["/", ".", "..", "a", "b.jpg", ".c", " ", "\\"]), max_size=8).map("".join))
def test_an_id_is_the_path_without_needless_parts(path: str) -> None:
    """An id is the same as that of pathlib, also for a path that is returned unchanged."""
    assert normalise(path) == PurePosixPath(path.replace(os.sep, "/")).as_posix()
