"""A GIF whose first frame covers only a part of its screen looks as in a browser."""

import struct
from typing import Any

import pytest
from pictures import BLUE, RED, WHITE, Colour, assert_near, encoded, outcome, pixel
from PIL import Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.prepare import prepare

SCREEN, LEFT, TOP = (100, 80), 20, 24
OPTIONS = ImageOptions(quality=95)


def on_larger_screen(image: Image.Image, screen: tuple[int, int] = SCREEN, **options: Any) -> bytes:
    """A GIF with the picture as its first frame at (20, 24) of a larger screen."""
    data = encoded(image, "GIF", **options)
    frame = b"\x2c" + struct.pack("<4H", 0, 0, *image.size)
    assert data.count(frame) == 1
    moved = data.replace(frame, b"\x2c" + struct.pack("<4H", LEFT, TOP, *image.size))
    return moved[:6] + struct.pack("<HH", *screen) + moved[10:]


def in_red_and_blue() -> Image.Image:
    """A palette picture, red on the left and blue on the right; red is the first colour of its palette."""
    image = Image.new("P", (60, 40), 0)
    image.putpalette((*RED, *BLUE))
    image.paste(1, (30, 0, 60, 40))
    return image


def around(prepared: PreparedImage) -> list[Colour]:
    """A pixel above, below, to the left and to the right of the frame."""
    return [pixel(prepared, x, y) for x, y in ((0.5, 0.1), (0.5, 0.95), (0.08, 0.5), (0.95, 0.5))]


@pytest.mark.parametrize("options", [{}, {"transparency": 1}])
def test_the_screen_around_the_frame_is_white(options: dict[str, Any]) -> None:
    """Around the frame the picture is white, with a transparent colour or without; the frame is as it was."""
    prepared = prepare(on_larger_screen(in_red_and_blue(), **options), OPTIONS)
    assert (prepared.width, prepared.height) == SCREEN
    for found in around(prepared):
        assert_near(found, WHITE)
    assert_near(pixel(prepared, 0.35), RED)
    assert_near(pixel(prepared, 0.65), WHITE if options else BLUE)


def test_a_grey_frame_stays_grey_on_white() -> None:
    """A frame with the palette of greys, which Pillow reads as L, has white around it, too."""
    prepared = prepare(on_larger_screen(Image.new("L", (60, 40), 90)), OPTIONS)
    for found in around(prepared):
        assert_near(found, WHITE)
    assert_near(pixel(prepared), (90, 90, 90))


def test_a_frame_that_covers_its_screen_has_no_white() -> None:
    """A frame as large as its screen is sent to its edges."""
    prepared = prepare(encoded(in_red_and_blue(), "GIF"), OPTIONS)
    assert_near(pixel(prepared, 0.02, 0.02), RED)
    assert_near(pixel(prepared, 0.98, 0.98), BLUE)


def test_a_frame_beyond_its_screen_is_whole() -> None:
    """A frame that begins inside a screen too small for it enlarges the screen, as Pillow does."""
    prepared = prepare(on_larger_screen(in_red_and_blue(), (40, 40)), OPTIONS)
    assert (prepared.width, prepared.height) == (LEFT + 60, TOP + 40)
    assert_near(pixel(prepared, 0.1, 0.1), WHITE)
    assert_near(pixel(prepared, 0.98, 0.98), BLUE)


def test_a_frame_without_pixels_costs_only_its_record() -> None:
    """A first frame of no width or height is a failed record or a white picture, and no other exception."""
    data = on_larger_screen(in_red_and_blue())
    frame = data.index(b"\x2c" + struct.pack("<4H", LEFT, TOP, 60, 40))
    for size in ((0, 40), (60, 0), (0, 0)):
        outcome(data[: frame + 5] + struct.pack("<HH", *size) + data[frame + 9 :])
