"""Every file of tests/images, read and prepared as in a run."""

from pathlib import Path

import pytest

from vlmbatch.config.groups import ImageOptions, InputOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging.prepare import prepare
from vlmbatch.sources import DirectorySource

FOLDER = Path(__file__).parents[1] / "images"
BROKEN = sorted(path for path in FOLDER.iterdir() if path.is_file() and path.suffix not in (".md", ".py"))


def test_a_walk_takes_all_of_them() -> None:
    """A walk finds broken images by their names, and ignores the page and script in their folder."""
    source = DirectorySource((str(FOLDER),), InputOptions())
    assert [ref.id for ref in source] == [path.as_posix() for path in BROKEN]
    assert len(BROKEN) == 14


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name)
def test_each_is_a_failure_of_its_own(path: Path) -> None:
    """Reading and preparing a broken image ends with an ImageError that says what is wrong."""
    source = DirectorySource((str(path),), InputOptions())
    (ref,) = source
    with pytest.raises(ImageError) as caught:
        prepare(source.read(ref).data, ImageOptions())
    assert caught.value.kind in ("bad_image", "too_large")
    assert not caught.value.retryable
    assert str(caught.value)
