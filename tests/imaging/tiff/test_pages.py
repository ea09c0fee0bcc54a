"""TIFF: the picture is sent, not the preview that comes before it."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import OPTIONS, RED, assert_near, pixel
from tiffs import HEIGHT, WIDTH, assert_quarters, quarters

from vlmbatch.errors import ImageError
from vlmbatch.imaging.prepare import inspect, prepare

RED_PREVIEW = np.full((10, 16, 3), RED, "u1")
PICTURE = quarters("u1", 255)


def pages(*pictures: tuple[Any, dict[str, Any]], **options: Any) -> bytes:
    """A TIFF with these pictures, each with its options."""
    out = BytesIO()
    with tifffile.TiffWriter(out, **options) as file:
        for samples, own in pictures:
            file.write(samples, photometric="rgb", metadata=None, **own)
    return out.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_preview_before_the_picture_is_passed_over(order: str, big: bool) -> None:
    """The first page that is no smaller version is sent, in any form of the file; the preview is no page."""
    for own in ({}, {"compression": "lzw"}, {"compression": "jpeg"}, {"tile": (16, 16)}):
        data = pages((RED_PREVIEW, {"subfiletype": 1}), (PICTURE, own), bigtiff=big, byteorder=order)
        assert_quarters(data)
        assert prepare(data, OPTIONS).frames == 1
        header = inspect(data)
        assert (header.width, header.height, header.frames) == (WIDTH, HEIGHT, 1)


def test_a_preview_of_the_old_kind_is_passed_over() -> None:
    """SubfileType 2, the tag of TIFF 5, marks a preview, too; several previews may come first."""
    old = {"extratags": [(255, 3, 1, 2, True)]}
    previews = (RED_PREVIEW, old), (RED_PREVIEW, {"subfiletype": 1})
    prepared = prepare(pages(*previews, (PICTURE, {}), (PICTURE, {})), OPTIONS)
    assert (prepared.original_width, prepared.frames) == (WIDTH, 2)


def test_a_picture_that_pillow_does_not_know_may_follow_a_preview() -> None:
    """The picture behind the preview may be of any kind, such as floats."""
    assert_quarters(pages((RED_PREVIEW, {"subfiletype": 1}), (quarters("f4", 1), {})))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "only a preview of 16x10 pixels, which was sent"),
        ({"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}, "develop it first"),
        ({"extratags": [(271, 2, 0, "NIKON", True)], "subifds": 1}, "develop it first"),
    ],
)
def test_a_lone_preview_is_sent_with_a_warning(own: dict[str, Any], words: str) -> None:
    """Camera raw under the name of a TIFF has only a preview in its pages, which the record says."""
    data = pages((RED_PREVIEW, {"subfiletype": 1} | own), (RED_PREVIEW, {"subfiletype": 1}))
    prepared = prepare(data, OPTIONS)
    assert_near(pixel(prepared), RED)
    assert prepared.frames == 1
    assert any(words in warning for warning in prepared.warnings)


def test_a_broken_picture_behind_a_preview_is_refused() -> None:
    """If the picture is cut short, the record fails; the preview is no answer instead."""
    data = pages((RED_PREVIEW, {"subfiletype": 1}), (PICTURE, {"compression": "lzw"}))
    with pytest.raises(ImageError):
        prepare(data[:-10], OPTIONS)


@pytest.mark.parametrize("values", [2**31, 60_000])
def test_hostile_tables_behind_a_preview_are_refused(values: int) -> None:
    """The page that is read is checked like a first page, wherever it is."""
    data = bytearray(pages((RED_PREVIEW, {"subfiletype": 1}), (PICTURE, {})))
    at = data.rindex(struct.pack("<HHI", 273, 4, 1))
    struct.pack_into("<HHII", data, at, 273, 4, values, 8)
    with pytest.raises(ImageError):
        prepare(bytes(data), OPTIONS)
