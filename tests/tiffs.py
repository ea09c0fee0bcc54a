"""TIFFs for the tests, written by tifffile, and checks of what is sent for them."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from pictures import BLUE, GREEN, OPTIONS, RED, WHITE, assert_near, pixel

from vlmbatch.imaging.prepare import prepare

WIDTH, HEIGHT = 70, 40  # no multiples of a tile


def tiff(samples: Any, **options: Any) -> bytes:
    out = BytesIO()
    tifffile.imwrite(out, samples, metadata=None, **options)
    return out.getvalue()


def patched(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian file with another value, or place of its values, for a tag of its first directory."""
    at = _entry(data, tag) + 8
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


def field(data: bytes | bytearray, tag: int) -> int:
    """The value of a tag of the first directory of a little-endian file, or the place of its values."""
    (value,) = struct.unpack_from("<I", data, _entry(data, tag) + 8)
    return int(value)


def _entry(data: bytes | bytearray, tag: int) -> int:
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = range(at + 2, at + 2 + 12 * count, 12)
    return next(entry for entry in entries if struct.unpack_from("<H", data, entry) == (tag,))


def quarters(kind: str, top: float) -> Any:
    """Four corners of red, green, blue and white in samples of this type, with `top` for full light."""
    picture = np.zeros((HEIGHT, WIDTH, 3), kind)
    half, middle = HEIGHT // 2, WIDTH // 2
    picture[:half, :middle, 0] = picture[:half, middle:, 1] = picture[half:, :middle, 2] = top
    picture[half:, middle:] = top
    return picture


def grey(kind: str, top: float) -> Any:
    """A ramp from 0 at the left to `top` at the right."""
    return np.tile(np.linspace(0, top, WIDTH), (HEIGHT, 1)).astype(kind)


def assert_quarters(data: bytes) -> None:
    prepared = prepare(data, OPTIONS)
    assert prepared.warnings == ()
    for (x, y), colour in {(0.2, 0.2): RED, (0.8, 0.2): GREEN, (0.2, 0.8): BLUE, (0.8, 0.8): WHITE}.items():
        assert_near(pixel(prepared, x, y), colour)


def assert_ramp(data: bytes, *, warned: bool = False) -> None:
    """The picture goes from black at the left to white at the right."""
    prepared = prepare(data, OPTIONS)
    assert bool(prepared.warnings) == warned
    for part in (0.1, 0.5, 0.9):
        assert_near(pixel(prepared, part), (round(255 * part),) * 3, 6)
