"""TIFF: the kinds that Pillow does not know are decoded by tifffile, or refused by name."""

import itertools
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pictures import BLUE, GREEN, OPTIONS, RED, WHITE, Colour, assert_near, encoded, outcome, pixel
from PIL import Image
from tiffs import HEIGHT, WIDTH, assert_quarters, assert_ramp, field, grey, patched, quarters, tiff

from vlmbatch.errors import ImageError
from vlmbatch.imaging.prepare import prepare

HALF = np.full((HEIGHT, WIDTH, 1), 0.5)


def in_samples(light: Any, kind: str) -> Any:
    """Light from 0 to 1 as samples of this type."""
    top = 1 if kind[0] == "f" else np.iinfo(kind).max
    return np.round(light * top).astype(kind) if top > 1 else light.astype(kind)


@pytest.mark.parametrize("packing", [None, "lzw", "adobe_deflate", "zstd"])
@pytest.mark.parametrize(
    ("kind", "top"), [("f2", 1), ("f8", 1), ("f8", 255), ("i8", 65535), ("u8", 65535), ("u4", 255)]
)
def test_wide_and_narrow_samples_are_a_ramp(kind: str, top: float, packing: str | None) -> None:
    """Grey of 16 and 64 bits, floats or integers, goes from black to white in any byte order and layout."""
    for order, tile in itertools.product("<>", (None, (16, 32))):
        assert_ramp(tiff(grey(kind, top), compression=packing, tile=tile, byteorder=order))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u4", "i2", "i1"])
def test_colours_of_any_sample_are_the_colours(kind: str) -> None:
    """RGB of floats, of 32 bits and of signed samples has its colours, in pixels and in planes."""
    picture = in_samples(quarters("f8", 1), kind)
    for order, predictor in itertools.product("<>", (False, True)):
        options = {"compression": "adobe_deflate", "predictor": predictor, "byteorder": order}
        data = tiff(picture, photometric="rgb", planarconfig="contig", **options)
        planes = tiff(np.moveaxis(picture, -1, 0), photometric="rgb", planarconfig="separate", **options)
        for file in (data, planes):
            prepared = prepare(file, OPTIONS)
            assert bool(prepared.warnings) == (kind == "u4")  # its white is not a usual one
            assert_near(pixel(prepared, 0.2, 0.2), RED)
            assert_near(pixel(prepared, 0.8, 0.8), WHITE)


def test_floats_of_colour_share_one_scale() -> None:
    """RGB floats beyond the usual whites are scaled together, so that no channel changes its colour."""
    picture = np.zeros((HEIGHT, WIDTH, 3), "f4")
    picture[:] = (100_000, 50_000, 0)
    picture[0, 0] = np.nan
    prepared = prepare(tiff(picture, photometric="rgb"), OPTIONS)
    assert_near(pixel(prepared), (255, 128, 0))
    assert prepared.warnings == (
        "pixel values from 0 to 100000 were scaled from black to white",
        "3 pixel values are NaN or infinite, and black in the picture that was sent",
    )


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "f4"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("premultiplied", [False, True])
def test_alpha_of_any_sample_is_sent_on_white(kind: str, planar: bool, premultiplied: bool) -> None:
    """Half transparent grey, RGB and CMYK become lighter, whatever their samples and their layout."""
    colours = {"minisblack": [0.5], "rgb": [1, 0, 0], "separated": [0, 1, 1, 0]}
    wanted: dict[str, Colour] = {
        "minisblack": (191, 191, 191),
        "rgb": (255, 128, 128),
        "separated": (255, 128, 128),
    }
    for photometric, colour in colours.items():
        inks = np.tile(np.array(colour) * (0.5 if premultiplied else 1), (HEIGHT, WIDTH, 1))
        inks[0, :2] = [[0], [0.5 if premultiplied else 1]]  # the range is that of the type
        samples = in_samples(np.concatenate((inks, HALF), axis=-1), kind)
        if planar:
            samples = np.moveaxis(samples, -1, 0)
        data = tiff(
            samples,
            photometric=photometric,
            planarconfig="separate" if planar else "contig",
            extrasamples=["assocalpha" if premultiplied else "unassalpha"],
        )
        assert_near(pixel(prepare(data, OPTIONS)), wanted[photometric], 3)


def test_half_transparent_inks_are_mixed_with_white_as_colours() -> None:
    """Inks of 20, 80, 60 and 30 %, half transparent, are the mean of their colour and white."""
    samples = np.tile(np.array((0.2, 0.8, 0.6, 0.3, 0.5)), (HEIGHT, WIDTH, 1))
    data = tiff(
        in_samples(samples, "u1"), photometric="separated", planarconfig="contig", extrasamples=["unassalpha"]
    )
    assert_near(pixel(prepare(data, OPTIONS)), (199, 145, 163), 3)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(
    ("photometric", "kind", "red"),
    [
        ("cielab", "u1", (136, 81, 70)),
        ("cielab", "u2", (35033, 20752, 17920)),
        ("cielab", "i2", (35033 - 65536, 20752, 17920)),  # as libvips writes it
        ("icclab", "u1", (136, 209, 198)),
        ("icclab", "u2", (34897, 53520, 50688)),
        ("cielab", "f4", (53.46, 81.06, 70.0)),
    ],
)
def test_lab_of_8_and_16_bits_and_floats_is_red(
    photometric: str, kind: str, red: tuple[float, ...], planar: bool
) -> None:
    """L* 53.5, a* 81, b* 70, which is sRGB's red under the white of D50, in each form of the standard."""
    samples = np.tile(np.array(red).astype(kind), (HEIGHT, WIDTH, 1))
    layout = "separate" if planar else "contig"
    samples = np.moveaxis(samples, -1, 0) if planar else samples
    data = tiff(samples, photometric=photometric, planarconfig=layout)
    assert_near(pixel(prepare(data, OPTIONS)), RED, 12)


def test_big_tiff_in_big_endian_order_is_read() -> None:
    """A BigTIFF with the most significant byte first, which Pillow does not recognise, is like any other."""
    for options in ({}, {"compression": "jpeg"}, {"compression": "lzw", "tile": (16, 32)}):
        data = tiff(quarters("u1", 255), bigtiff=True, byteorder=">", photometric="rgb", **options)
        assert_quarters(data)


def test_white_is_zero_is_inverted_in_any_order() -> None:
    """Grey of 16 bits that counts from white, most significant byte first, is not a negative."""
    for kind in ("u2", "f8", "i4"):
        top = 1 if kind == "f8" else 65535
        assert_ramp(tiff((top - grey("f8", top)).astype(kind), photometric="miniswhite", byteorder=">"))


def test_palettes_of_16_bits_have_their_colours() -> None:
    """A palette with an index of 16 bits is looked up in its colour map."""
    index = np.zeros((HEIGHT, WIDTH), "u2")
    index[:, WIDTH // 2 :] = 65535
    colours = np.zeros((3, 65536), "u2")
    colours[0, 0] = colours[2, 65535] = 65535
    prepared = prepare(tiff(index, photometric="palette", colormap=colours), OPTIONS)
    assert_near(pixel(prepared, 0.2), RED)
    assert_near(pixel(prepared, 0.8), BLUE)


def test_a_turned_picture_is_upright() -> None:
    """The orientation counts for these kinds, too: the record has the upright size."""
    data = tiff(quarters("f4", 1), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    prepared = prepare(data, OPTIONS)
    assert (prepared.original_width, prepared.original_height) == (HEIGHT, WIDTH)
    assert_near(pixel(prepared, 0.2, 0.2), BLUE)
    assert_near(pixel(prepared, 0.8, 0.2), RED)
    assert_near(pixel(prepared, 0.8, 0.8), GREEN)


def test_channels_that_mean_nothing_are_named() -> None:
    """A picture of many bands shows the first ones, and the record says how many there were."""
    data = tiff(np.zeros((HEIGHT, WIDTH, 7), "u2"), photometric="minisblack", planarconfig="contig")
    assert "only 1 of its 7 channels was used" in prepare(data, OPTIONS).warnings


@pytest.mark.parametrize("cut", [1, 100, 1000])
@pytest.mark.parametrize("packing", [None, "lzw", "adobe_deflate", "zstd", "packbits", "lzma"])
def test_a_picture_that_is_cut_short_is_refused(packing: str | None, cut: int) -> None:
    """A file without its end is refused, however its samples are packed."""
    data = tiff(np.random.default_rng(1).random((HEIGHT, WIDTH)), compression=packing, rowsperstrip=16)
    with pytest.raises(ImageError):
        prepare(data[:-cut], OPTIONS)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        (262, 32803, "raw data of a camera's sensor"),
        (262, 34892, "raw data of a camera"),
        (262, 32845, "LogLuv"),
        (262, 777, "colours of kind 777"),
        (259, 34887, "the unknown compression 34887"),
        (339, 6, r"an unusual format \(6\)"),
        (258, 200, "200 bits"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_name(tag: int, value: int, words: str) -> None:
    """A file of a kind that no decoder here knows is refused, and the record names the kind."""
    with pytest.raises(ImageError, match=words):
        prepare(patched(tiff(grey("f8", 1)), tag, value), OPTIONS)


def test_without_the_extra_the_message_says_what_to_install() -> None:
    """Without tifffile, the refusal has the command that installs it; other TIFFs are read as before."""
    script = (
        "import sys; sys.modules['tifffile'] = None\n"
        "from vlmbatch.imaging.prepare import prepare\n"
        "from vlmbatch.config.groups import ImageOptions\n"
        "from vlmbatch.errors import ImageError\n"
        f"prepare({encoded(Image.new('RGB', (9, 9)), 'TIFF')!r}, ImageOptions())\n"
        f"try: prepare({tiff(np.zeros((9, 9)))!r}, ImageOptions())\n"
        "except ImageError as error: print(error.retryable, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "True this kind of TIFF (grey, 1 x 64 bits, float) needs one more decoder;"
        ' install it with: pip install "vlmbatch[tiff]"\n'
    )


def test_strips_that_overlap_are_refused() -> None:
    """Thousands of strips that share the same bytes, which could take hours to unpack, are refused."""
    data = bytearray(tiff(np.zeros((4000, 20)), rowsperstrip=1))
    struct.pack_into("<4000I", data, field(data, 273), *[8] * 4000)
    struct.pack_into("<4000H", data, field(data, 279), *[60_000] * 4000)
    with pytest.raises(ImageError, match="overlap"):
        prepare(bytes(data), OPTIONS)


def test_enormous_tiles_are_refused() -> None:
    """Tiles much larger than their picture are refused before one is unpacked."""
    data = tiff(np.zeros((64, 64)), tile=(16, 16))
    with pytest.raises(ImageError, match="tiles of 30000x30000"):
        prepare(patched(patched(data, 322, 30_000), 323, 30_000), OPTIONS)


def test_mutated_files_are_decoded_or_refused() -> None:
    """A file with any byte of its directory changed gives a picture or an ImageError, and nothing else."""
    for samples, photometric in ((grey("f8", 1), "minisblack"), (quarters("f2", 1), "rgb")):
        data = tiff(samples, photometric=photometric, compression="adobe_deflate", tile=(16, 16))
        for at in range(8, min(len(data), 250)):
            for value in (0, 1, 0x7F, 0xFF):
                outcome(data[:at] + bytes((value,)) + data[at + 1 :])
