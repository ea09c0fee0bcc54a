"""Pictures of which nothing can be seen on white."""

import struct

import pytest
from pictures import BLACK, GREEN, OPTIONS, RED, assert_near, encoded, pixel
from PIL import Image, ImageDraw

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare

SIZE = (200, 100)
CLEAR = Image.new("RGBA", SIZE)
ON_WHITE = (
    "nothing of it is visible on white, since its pixels are white;"
    " to put it on black first, type: magick FILE -background black -flatten OUT.png"
)
EMPTY = (
    "nothing of it is visible, since all pixels are transparent;"
    " to send its hidden colours, type: magick FILE -alpha off OUT.png"
)


def logo(colour: str | tuple[int, ...], background: tuple[int, ...] = (0, 0, 0, 0)) -> Image.Image:
    image = Image.new("RGBA", SIZE, background)
    ImageDraw.Draw(image).ellipse((40, 20, 160, 80), fill=colour)
    return image


def with_alpha(image: Image.Image, alpha: Image.Image | int) -> Image.Image:
    image = image.convert("RGB")
    image.putalpha(alpha)
    return image


def in_palette(colour: tuple[int, int, int]) -> Image.Image:
    """A disc of this colour; the other pixels have the transparent colour 0."""
    image = Image.new("P", SIZE, 0)
    image.putpalette([*BLACK, *colour])
    ImageDraw.Draw(image).ellipse((40, 20, 160, 80), fill=1)
    return image


@pytest.mark.parametrize("max_size", [70, 1024])
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_a_white_logo_is_a_warning(name: str, max_size: int) -> None:
    """A white drawing on nothing becomes a white area, and the record says so and what helps."""
    options = {"lossless": True} if name == "WEBP" else {}
    for colour in ("white", (254, 254, 254)):
        data = encoded(logo(colour), name, **options)
        assert prepare(data, ImageOptions(max_size=max_size)).warnings == (ON_WHITE,)


@pytest.mark.parametrize("max_size", [70, 1024])
def test_a_picture_that_is_all_transparent_is_a_warning(max_size: int) -> None:
    """A picture with colours but no opaque pixel is sent as white, with a warning."""
    options = ImageOptions(max_size=max_size)
    assert prepare(encoded(CLEAR), options).warnings == (EMPTY,)
    hidden = with_alpha(Image.linear_gradient("L").resize(SIZE), 0)
    assert prepare(encoded(hidden), options).warnings == (EMPTY,)


@pytest.mark.parametrize("name", ["GIF", "PNG"])
def test_a_transparent_colour_of_a_palette_counts(name: str) -> None:
    """A white drawing in a palette with a transparent colour is a warning, a black one is not."""
    assert prepare(encoded(in_palette((255, 255, 255)), name, transparency=0), OPTIONS).warnings == (
        ON_WHITE,
    )
    assert prepare(encoded(in_palette((9, 9, 9)), name, transparency=0), OPTIONS).warnings == ()
    assert prepare(encoded(in_palette((255, 255, 255)), name), OPTIONS).warnings == ()


def test_an_animation_that_begins_empty_is_a_warning() -> None:
    """If the first frame of an animation is empty, the warning speaks of that frame."""
    data = encoded(CLEAR, "WEBP", save_all=True, append_images=[logo("red")] * 2, duration=90)
    assert prepare(data, OPTIONS).warnings[-1] == (
        "nothing of its first frame is visible, since all pixels are transparent;"
        " to send another frame, type: magick 'FILE[1]' OUT.png"
    )


@pytest.mark.parametrize(
    "image",
    [
        logo("black"),
        logo("white", (0, 0, 0, 40)),
        logo("yellow"),
        Image.new("RGBA", SIZE, "white"),
        Image.new("RGBA", SIZE, "black"),
        Image.new("RGBA", SIZE, (255, 0, 0, 128)),
        Image.new("RGB", SIZE, "white"),
        with_alpha(logo("white"), Image.linear_gradient("L").resize(SIZE)),
    ],
    ids=["black", "on a shade", "yellow", "white area", "black area", "glass", "opaque", "gradient"],
)
def test_what_can_be_seen_is_no_warning(image: Image.Image) -> None:
    """A picture that is visible, and one that is a plain area itself, adds no warning."""
    assert prepare(encoded(image), OPTIONS).warnings == ()


def bmp(alpha: int) -> bytes:
    """A BMP of 32 bits with a mask for alpha: its left half is red, its right half green."""
    width, height = 64, 40
    row = bytes((0, 0, 255, alpha)) * 32 + bytes((0, 255, 0, alpha)) * 32
    head = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(row) * height, 0, 0, 0, 0)
    head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    body = head.ljust(124, b"\0") + row * height
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 124) + body


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_without_any_opacity_is_opaque(alpha: int) -> None:
    """A BMP whose fourth byte is 0 in all pixels is opaque, as in browsers."""
    prepared = prepare(bmp(alpha), OPTIONS)
    assert_near(pixel(prepared, 0.25), RED)
    assert_near(pixel(prepared, 0.75), GREEN)
    assert prepared.warnings == ()


def test_a_bmp_with_some_opacity_lies_on_white() -> None:
    """A BMP that is half transparent everywhere is put on white."""
    assert_near(pixel(prepare(bmp(128), OPTIONS), 0.25), (255, 127, 127))
