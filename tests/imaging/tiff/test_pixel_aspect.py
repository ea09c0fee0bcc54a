"""A fax, whose pixels are not square, is sent as it looks on paper."""

from typing import Any

import pytest
from pictures import BLACK, WHITE, assert_near, encoded, pixel, sent
from PIL import Image, ImageDraw

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import inspect, prepare


def fax(across: Any, down: Any, mode: str = "1", **options: Any) -> bytes:
    """A page of 400x300 pixels with a black box in its upper left quarter."""
    page = Image.new("L", (400, 300), "white")
    ImageDraw.Draw(page).rectangle((0, 0, 199, 149), fill="black")
    options = {"compression": "group4" if mode == "1" else "raw", "dpi": (across, down)} | options
    return encoded(page.convert(mode), "TIFF", **options)


@pytest.mark.parametrize(
    ("across", "down", "size"),
    [
        (204, 98, (400, 624)),  # the standard resolution of a fax
        (204, 196, (400, 300)),  # fine: nearly square
        (204, 391, (767, 300)),  # superfine
        (300, 300, (400, 300)),
        (300, 72, (400, 300)),  # no fax: a mistake
        (72, 300, (400, 300)),
        (0, 98, (400, 300)),
    ],
)
def test_the_coarser_axis_of_a_fax_is_stretched(across: int, down: int, size: tuple[int, int]) -> None:
    """Pixels become square, and the picture no larger than that; the record has the size of the file."""
    data = fax(across, down)
    prepared = prepare(data, ImageOptions(max_size=0))
    assert sent(prepared).size == size
    assert (prepared.original_width, prepared.original_height, prepared.warnings) == (400, 300, ())
    assert_near(pixel(prepared, 0.48, 0.48), BLACK)
    assert_near(pixel(prepared, 0.52, 0.48), WHITE)
    assert_near(pixel(prepared, 0.48, 0.52), WHITE)
    header = inspect(data)
    assert (header.width, header.height, header.square) == (400, 300, size)


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (205, 320)), (3, (205, 320)), (6, (320, 205)), (8, (320, 205))]
)
def test_a_turned_fax_is_stretched_along_its_lines(orientation: int, size: tuple[int, int]) -> None:
    """The resolutions are those of the pixels in the file, also if the page lies on its side there."""
    data = fax(204, 98, tiffinfo={274: orientation})
    assert sent(prepare(data, ImageOptions(max_size=320))).size == size


def test_other_pictures_keep_their_pixels() -> None:
    """Different resolutions of a picture that is no fax mean nothing."""
    for mode in ("L", "RGB"):
        assert sent(prepare(fax(204, 98, mode), ImageOptions(max_size=0))).size == (400, 300)
