"""TIFF: samples of each type, byte order, packing and layout are sent as the picture that they are."""

import itertools
import math
import struct

import numpy as np
import pytest
from pictures import BLACK, OPTIONS, RED, WHITE, assert_near, encoded, pixel, ramp
from tiffs import HEIGHT, WIDTH, assert_quarters, assert_ramp, grey, patched, quarters, tiff

from vlmbatch.errors import ImageError
from vlmbatch.imaging.prepare import prepare

ORDERS = ("<", ">")
PACKINGS = (None, "lzw", "adobe_deflate", "packbits")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("kind", "top"),
    [
        ("i1", 127),
        ("i2", 32767),
        ("i4", 65535),
        ("u1", 255),
        ("u2", 65535),
        ("f4", 1),
        ("f4", 255),
        ("f4", 4095),
    ],
)
def test_a_ramp_is_a_ramp_in_any_byte_order(kind: str, top: float, packing: str | None) -> None:
    """Grey of each type of sample goes from black to white, packed or not, also in the other byte order."""
    for order, tile in itertools.product(ORDERS, (None, (16, 32))):
        predictors = (False, True) if packing in ("lzw", "adobe_deflate") else (False,)
        for predictor in predictors:
            options = {"compression": packing, "predictor": predictor, "tile": tile, "byteorder": order}
            assert_ramp(tiff(grey(kind, top), **options), warned=top == 4095)


def test_missing_strips_are_not_black() -> None:
    """A file that lists fewer strips or tiles than its height needs is refused, packed or not."""
    for planar, packing, tile in itertools.product(("contig", "separate"), PACKINGS, (None, (16, 32))):
        picture = quarters("u1", 255)
        picture = np.moveaxis(picture, -1, 0) if planar == "separate" else picture
        options = {"compression": packing, "tile": tile, "rowsperstrip": None if tile else 8}
        data = tiff(picture, photometric="rgb", planarconfig=planar, byteorder="<", **options)
        with pytest.raises(ImageError, match="truncated"):
            prepare(patched(data, 257, 4000), OPTIONS)


@pytest.mark.parametrize("packing", PACKINGS)
def test_large_unsigned_integers_do_not_wrap(packing: str | None) -> None:
    """Samples of 32 bits above half of their range are the light part of the picture, not the dark one."""
    data = tiff(grey("f8", 2**32 - 1).astype("u4"), compression=packing, byteorder="<")
    assert_ramp(data, warned=True)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(("kind", "top"), [("u1", 255), ("u2", 65535)])
def test_planes_and_pixels_give_the_same_picture(kind: str, top: int, packing: str | None) -> None:
    """RGB that is stored as three planes has the colours of RGB that is stored pixel by pixel."""
    picture = quarters(kind, top)
    for order, tile in itertools.product(ORDERS, (None, (16, 32))):
        options = {"compression": packing, "tile": tile, "byteorder": order, "photometric": "rgb"}
        assert_quarters(tiff(picture, planarconfig="contig", **options))
        assert_quarters(tiff(np.moveaxis(picture, -1, 0), planarconfig="separate", **options))


def palette(largest: int) -> bytes:
    """Red, green, blue and white in quarters, from a colour map with this value for full light."""
    colours = np.zeros((3, 256), "u2")
    colours[[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 3, 3]] = largest
    index = np.zeros((HEIGHT, WIDTH), "u1")
    index[: HEIGHT // 2, WIDTH // 2 :] = 1
    index[HEIGHT // 2 :, : WIDTH // 2] = 2
    index[HEIGHT // 2 :, WIDTH // 2 :] = 3
    return tiff(index, photometric="palette", colormap=colours)


@pytest.mark.parametrize("largest", [255, 65535])
def test_a_colour_map_may_have_8_or_16_bits(largest: int) -> None:
    """A colour map that was written with 8 bits, against the standard, is not black."""
    assert_quarters(palette(largest))


def test_grey_with_premultiplied_alpha_is_sent_on_white() -> None:
    """Grey that is already multiplied by its alpha: black at half alpha on white is middle grey."""
    samples = np.zeros((HEIGHT, WIDTH, 2), "u1")
    samples[..., 1] = 128
    data = tiff(samples, photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    assert_near(pixel(prepare(data, OPTIONS)), (127,) * 3)


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("place", [0, 100])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_sample_that_is_no_number_costs_only_its_pixel(
    value: float, place: int, white_is_zero: bool
) -> None:
    """NaN and infinity are sent as black with a warning that counts them; the others look as without them."""
    samples = grey("f4", 1)
    samples[10:20, 0:2] = samples.flat[place] = value
    data = tiff(1 - samples, photometric="miniswhite") if white_is_zero else tiff(samples)
    prepared = prepare(data, OPTIONS)
    assert prepared.warnings == (
        "21 pixel values are NaN or infinite, and black in the picture that was sent",
    )
    assert_near(pixel(prepared, 0.9, 0.9), (230,) * 3)
    assert_near(pixel(prepared, 0.0, 0.4), BLACK, 40)


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(
    ("kind", "top", "value"),
    [
        *itertools.product(("f2", "f4", "f8"), (1,), (-9999, 3)),
        *itertools.product(("f4", "f8"), (1,), (-3.4028234663852886e38, 1e30)),
        *itertools.product(("i2", "i4"), (255,), (-9999, -32768)),
        ("i4", 255, -(2**31)),
        ("u2", 4095, 65535),
        ("u4", 255, 65535),
    ],
)
def test_a_value_that_stands_for_no_data_costs_only_its_pixels(
    kind: str, top: float, value: float, white_is_zero: bool
) -> None:
    """The value that GDAL's tag names is sent as black, and the other samples look as without it."""
    samples = grey(kind, top)
    if white_is_zero:
        samples = (top - samples).astype(kind)
    samples[10:20, 0:2] = value
    options = {"photometric": "miniswhite" if white_is_zero else "minisblack"}
    prepared = prepare(tiff(samples, extratags=[(42113, "s", 0, f"{value!r} ", True)], **options), OPTIONS)
    assert [words for words in prepared.warnings if "pixel values are" in words] == [
        f"20 pixel values are {value:g} (no data), NaN or infinite, and black in the picture that was sent",
    ]
    assert_near(pixel(prepared, 0.9, 0.9), (230,) * 3)
    assert_near(pixel(prepared, 0.0, 0.4), BLACK, 40)


def test_the_least_float_stands_for_no_data() -> None:
    """Maps have it where nothing is known, also without a tag; it does not make all else white."""
    samples = grey("f4", 1)
    samples[10:20, 0:2] = np.finfo("f4").min
    prepared = prepare(tiff(samples), OPTIONS)
    assert prepared.warnings == (
        "20 pixel values are NaN or infinite, and black in the picture that was sent",
    )
    assert_near(pixel(prepared, 0.1, 0.9), (26,) * 3)


@pytest.mark.parametrize("text", ["nan", "inf", "", "none", "1e999", "0", "0.5"])
def test_a_value_that_no_sample_has_changes_nothing(text: str) -> None:
    """A tag of no data that is no number, 0, or no value of the samples is no reason for a warning."""
    for kind, top in (("f4", 255), ("u2", 65535), ("f8", 255)):
        data = tiff(grey(kind, top).round(), extratags=[(42113, "s", 0, text, True)])
        assert_ramp(data, warned=False)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_picture_without_a_number_is_refused(value: float) -> None:
    """A picture of NaN or infinity alone is a failed record that says so."""
    with pytest.raises(ImageError, match="all its pixel values are NaN or infinite"):
        prepare(encoded(ramp("F", [value] * 256), "TIFF"), OPTIONS)


def test_twelve_bits_are_twelve_bits() -> None:
    """Grey of 12 bits, two samples in three bytes, needs no guess about its white and so no warning."""
    assert_ramp(tiff(grey("u2", 4095), bitspersample=12, byteorder="<"))


def test_planes_with_more_than_transparency_keep_their_colours() -> None:
    """Five planes, of which the fourth is an opaque alpha and the fifth means nothing, are RGB."""
    more = np.stack([np.full((HEIGHT, WIDTH), value, "u1") for value in (255, 99)])
    planes = np.concatenate((np.moveaxis(quarters("u1", 255), -1, 0), more))
    for packing in PACKINGS:
        options = {"planarconfig": "separate", "extrasamples": ["unassalpha", "unspecified"]}
        prepared = prepare(tiff(planes, photometric="rgb", compression=packing, **options), OPTIONS)
        assert prepared.warnings == ("only 4 of its 5 channels were used",)
        assert_near(pixel(prepared, 0.2, 0.2), RED)
        assert_near(pixel(prepared, 0.8, 0.8), WHITE)


@pytest.mark.parametrize("blocks", [(1, 1), (2, 1), (2, 2)])
def test_raw_colours_of_few_samples_are_the_colours(blocks: tuple[int, int]) -> None:
    """Uncompressed YCbCr stores the colour once for a block of brightness samples (TIFF 6.0 section 21)."""
    across, down = blocks
    width, height = 64, 64
    red = bytes([76] * (across * down) + [85, 255])  # of JFIF
    data = red * (width // across * height // down)
    tags = [
        (256, 3, (width,)), (257, 3, (height,)), (258, 3, (8, 8, 8)), (259, 3, (1,)), (262, 3, (6,)),
        (273, 4, (8,)), (277, 3, (3,)), (278, 3, (height,)), (279, 4, (len(data),)), (530, 3, blocks),
    ]  # fmt: skip
    entries, tables = b"", b""
    start = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        field = packed.ljust(4, b"\0")
        if len(packed) > 4:
            field = struct.pack("<I", start + len(tables))
            tables += packed
        entries += struct.pack("<HHI", tag, kind, len(values)) + field
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    file = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + tables
    assert_near(pixel(prepare(file, OPTIONS)), RED, 6)
