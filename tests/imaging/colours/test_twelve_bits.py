"""Dark samples of 16 bits are brightened alike, whether they are grey or colours, in TIFF and in PNG."""

import struct
import zlib

import numpy as np
import pytest
from pictures import OPTIONS, assert_near, pixel, png_chunk
from tiffs import HEIGHT, WIDTH, grey, tiff

from vlmbatch.imaging.prepare import prepare

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels (PNG, section 11.2.1)


def png(samples: "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]") -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write for colours."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)


def ramp_to(top: int, channels: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    """A grey ramp in all colours; an alpha, the second or the fourth channel, is opaque."""
    samples = np.repeat(grey("u2", top)[..., None], channels, axis=-1)
    if channels in (2, 4):
        samples[..., -1] = 65535
    return samples


def files(top: int) -> dict[str, bytes]:
    """The same ramp in grey and in colours, in PNG and in TIFF."""
    found = {f"png {channels}": png(ramp_to(top, channels)) for channels in (1, 2, 3, 4)}
    for order in "<>":
        found[f"grey {order}"] = tiff(grey("u2", top), byteorder=order)
        for packing in (None, "lzw"):
            options = {"photometric": "rgb", "byteorder": order, "compression": packing}
            found[f"rgb {order}{packing}"] = tiff(ramp_to(top, 3), **options)
            found[f"rgba {order}{packing}"] = tiff(ramp_to(top, 4), extrasamples=["unassalpha"], **options)
            planes = np.moveaxis(ramp_to(top, 3), -1, 0)
            found[f"planes {order}{packing}"] = tiff(planes, planarconfig="separate", **options)
    return found


@pytest.mark.parametrize("top", [4095, 3000, 65535, 4096])
def test_colours_are_scaled_like_grey(top: int) -> None:
    """If no sample exceeds 4095, that is white, with a warning; otherwise 65535 is, without a warning."""
    white = 4095 if top <= 4095 else 65535
    for name, data in files(top).items():
        prepared = prepare(data, OPTIONS)
        wanted = (f"pixel values from 0 to {top} were scaled from black to white",) if top <= 4095 else ()
        assert prepared.warnings == wanted, name
        for part in (0.1, 0.5, 0.9):
            assert_near(pixel(prepared, part), (round(255 * part * top / white),) * 3, 5)


def test_the_warning_has_the_exact_range() -> None:
    """The range in the warning is that of whole samples, not of their upper bytes."""
    samples = np.full((HEIGHT, WIDTH, 3), 1000, "u2")
    samples[0, 0], samples[0, 1] = (259, 511, 700), (2047, 1024, 2050)
    assert prepare(png(samples), OPTIONS).warnings == (
        "pixel values from 259 to 2050 were scaled from black to white",
    )


def test_a_dark_alpha_is_scaled_too() -> None:
    """An alpha of 12 bits next to colours of 12 bits is opaque at 4095."""
    samples = np.full((HEIGHT, WIDTH, 4), 4095, "u2")
    samples[..., 1:3] = 0
    assert_near(pixel(prepare(png(samples), OPTIONS)), (255, 0, 0))


def test_an_alpha_of_all_bits_stays_beside_dark_colours() -> None:
    """Colours of 12 bits are brightened, but half of 16 bits is half an alpha: white shines through."""
    samples = np.zeros((HEIGHT, WIDTH, 4), "u2")
    samples[..., 3] = 32768
    for data in (png(samples), tiff(samples, photometric="rgb", extrasamples=["unassalpha"])):
        assert_near(pixel(prepare(data, OPTIONS)), (127,) * 3, 3)
