"""Colours: transparency, deep samples, other colour models and profiles are sent as they look."""

import random

import PIL
import pytest
from pictures import (
    BLACK,
    BLUE,
    OPTIONS,
    RED,
    SMALL,
    WHITE,
    Colour,
    assert_near,
    deep,
    encoded,
    pixel,
    png_chunk,
    psnr,
    ramp,
    sent,
    swapped_profile,
)
from PIL import Image, ImageChops, ImageCms, ImageDraw

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare


def see_through(mode: str) -> bytes:
    """The left half is opaque blue or gray, the right half transparent over a hidden colour."""
    image = Image.new("RGBA", (200, 100), (*RED, 0))
    image.paste((0, 0, 255, 255), (0, 0, 100, 100))
    if mode == "P":
        palette = Image.new("P", (200, 100), 1)
        palette.putpalette([0, 0, 255, 0, 0, 0])
        palette.paste(0, (0, 0, 100, 100))
        return encoded(palette, "PNG", transparency=1)
    if mode in ("L", "RGB"):
        opaque = Image.new("RGB", (200, 100), BLACK)
        opaque.paste(BLUE, (0, 0, 100, 100))
        return encoded(opaque.convert(mode), "PNG", transparency=0 if mode == "L" else BLACK)
    if mode == "PA":  # a palette of colours with alpha, as PNG's tRNS with many entries gives
        return encoded(image.quantize(4, Image.Quantize.FASTOCTREE), "PNG")
    return encoded(image.convert(mode), "PNG")


@pytest.mark.parametrize("max_size", [1024, 50])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "L", "RGB"])
def test_transparency_becomes_white(mode: str, max_size: int) -> None:
    """The hidden colour of transparent pixels never shows through, resized or not."""
    prepared = prepare(see_through(mode), ImageOptions(max_size=max_size))
    assert_near(pixel(prepared, 0.75), WHITE, 3)
    assert_near(pixel(prepared, 0.9), WHITE, 3)
    left = pixel(prepared, 0.25)
    assert_near(left, (left[0], left[0], left[0]) if mode in ("LA", "L") else BLUE)
    assert max(left[:2]) < 60


def test_half_transparent_edges_do_not_take_on_the_hidden_colour() -> None:
    """Shrinking black on transparent red gives grey edges, not red ones."""
    image = Image.new("RGBA", (400, 400), (*RED, 0))
    ImageDraw.Draw(image).ellipse((50, 50, 350, 350), fill=(*BLACK, 255))
    red, green, _ = sent(prepare(encoded(image), ImageOptions(max_size=64, quality=100))).split()
    assert ImageChops.difference(red, green).getextrema()[1] < 12  # type: ignore[operator]  # one band


@pytest.mark.parametrize(
    ("mode", "name", "values", "warned"),
    [
        ("I;16", "PNG", [x * 257 for x in range(256)], False),
        ("I;16", "TIFF", [x * 257 for x in range(256)], False),
        ("I;16B", "TIFF", [x * 257 for x in range(256)], False),
        ("I;16", "TIFF", [x * 16 for x in range(256)], True),  # a 12-bit sensor
        ("I", "TIFF", [x * 257 for x in range(256)], False),
        ("I", "TIFF", list(range(256)), False),
        ("I", "TIFF", [(x - 100) * 1_000_000 for x in range(256)], True),
        ("F", "TIFF", [x / 255 for x in range(256)], False),
        ("F", "TIFF", list(range(256)), False),
        ("F", "TIFF", [x / 255 - 0.5 for x in range(256)], True),
        ("F", "TIFF", [x * 1e6 for x in range(256)], True),
    ],
)
def test_deep_samples_are_scaled_and_not_clipped(
    mode: str, name: str, values: list[float], warned: bool
) -> None:
    """A ramp of 16 or 32 bits stays a ramp from black to white, and an unusual range adds a warning."""
    prepared = prepare(encoded(ramp(mode, values), name), ImageOptions(quality=100))
    row = [pixel(prepared, (x + 0.5) / 256)[0] for x in range(0, 256, 15)]
    assert row == pytest.approx(list(range(0, 256, 15)), abs=2)
    assert bool(prepared.warnings) == warned


def test_a_transparent_colour_of_16_bits_is_left_alone() -> None:
    """A PNG may declare one 16-bit grey as transparent, which does not fit into 8 bits; it is ignored."""
    data = encoded(deep(SMALL))
    prepared = prepare(data[:33] + png_chunk(b"tRNS", b"\xff\xff") + data[33:], OPTIONS)
    assert psnr(sent(prepared).convert("L"), SMALL.convert("L")) > 25


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [
        ("I;16", "PNG", 0),
        ("I;16", "PNG", 1),
        ("I", "TIFF", 0),
        ("F", "TIFF", 0),
        ("F", "TIFF", 1),
        ("I", "TIFF", 1_000_000),
        ("F", "TIFF", -7),
        ("F", "TIFF", 1e38),
    ],
)
def test_a_flat_deep_picture_is_fine(mode: str, name: str, value: float) -> None:
    """A picture of one value causes no division by zero."""
    sent(prepare(encoded(ramp(mode, [value] * 256), name), OPTIONS))


OLD_PILLOW = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow 12 cannot read the YCbCr TIFF that it writes"
)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("JPEG", "CMYK"),
        ("TIFF", "CMYK"),
        ("PNG", "P"),
        ("TIFF", "LAB"),
        pytest.param("TIFF", "YCbCr", marks=OLD_PILLOW),
    ],
)
@pytest.mark.parametrize("colour", [RED, (0, 128, 0), WHITE, BLACK])
def test_other_colour_models_become_rgb(name: str, mode: str, colour: Colour) -> None:
    """CMYK (inverted, as Adobe writes it), palettes, LAB with its profile and YCbCr keep their colours."""
    image = Image.new("RGB", (300, 200), colour)
    prepared = prepare(encoded(image.convert(mode), name), ImageOptions(max_size=64))
    assert_near(pixel(prepared), colour)
    assert prepared.warnings == ()


def test_one_bit_pictures_are_resized_to_gray() -> None:
    """A fine black and white pattern becomes grey when it shrinks, and not random dots."""
    image = Image.new("1", (800, 800))
    image.putdata([255 * ((x + y) % 2) for y in range(800) for x in range(800)])
    assert_near(pixel(prepare(encoded(image), ImageOptions(max_size=100))), (128, 128, 128))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_colour_profile_is_carried_over_to_srgb(name: str) -> None:
    """Pixels of another colour space are converted to sRGB, and the profile is not sent."""
    data = encoded(Image.new("RGB", (300, 200), (220, 30, 30)), name, icc_profile=swapped_profile())
    prepared = prepare(data, ImageOptions(max_size=64))
    red, green, blue = pixel(prepared)
    assert green > 180
    assert max(red, blue) < 80
    assert prepared.warnings == ()


def test_a_gray_picture_with_a_profile_of_colours_stays_gray() -> None:
    """A grey picture with an RGB profile, as cameras write it, stays grey and adds no warning."""
    data = encoded(Image.new("L", (64, 64), 90), "JPEG", icc_profile=swapped_profile())
    prepared = prepare(data, OPTIONS)
    assert max(pixel(prepared)) - min(pixel(prepared)) <= 6
    assert prepared.warnings == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", ["noise", "of another space"])
def test_a_bad_profile_is_only_a_warning(mode: str, profile: str) -> None:
    """An unreadable or unsuitable profile is ignored and adds a warning."""
    icc = random.Random(1).randbytes(500)
    if profile == "of another space":
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.new("RGB", (64, 64), (90, 90, 90)).convert(mode)
    prepared = prepare(encoded(image, "JPEG", icc_profile=icc), OPTIONS)
    assert_near(pixel(prepared), (90, 90, 90))
    assert prepared.warnings[0].startswith("its colour profile cannot be used")
