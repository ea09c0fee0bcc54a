"""The transparent colour of a PNG of 16 bits a channel becomes white."""

import struct
import zlib

import pytest
from pictures import RED, WHITE, assert_near, outcome, pixel, png_chunk

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare

OPTIONS = ImageOptions(quality=95)
NEXT_TO_KEY = 0x4001


def deep_png(left: tuple[int, ...], right: tuple[int, ...], key: tuple[int, ...]) -> bytes:
    """A PNG of 16 bits, grey or RGB, of two halves of 40x60 pixels each, with this transparent colour."""
    row = b"\0" + struct.pack(f">{len(left)}H", *left) * 40 + struct.pack(f">{len(right)}H", *right) * 40
    head = struct.pack(">IIBBBBB", 80, 60, 16, 0 if len(key) == 1 else 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        + png_chunk(b"IDAT", zlib.compress(row * 60))
        + png_chunk(b"IEND", b"")
    )


def test_the_transparent_grey_is_white_and_the_grey_next_to_it_is_not() -> None:
    """All 16 bits of a grey are compared, without a warning."""
    prepared = prepare(deep_png((0x4000,), (NEXT_TO_KEY,), (0x4000,)), OPTIONS)
    assert_near(pixel(prepared, 0.2), WHITE)
    assert_near(pixel(prepared, 0.8), (64, 64, 64))
    assert [warning for warning in prepared.warnings if "transparent" in warning] == []


@pytest.mark.parametrize("key", [(0x1234, 0x0056, 0xABCD), (0, 0, 5), (255, 255, 255)])
def test_the_transparent_colour_is_white(key: tuple[int, int, int]) -> None:
    """A colour of 16 bits is transparent, also if its numbers fit into 8 bits; a warning tells the limit."""
    prepared = prepare(deep_png(key, (65535, 0, 0), key), OPTIONS)
    assert_near(pixel(prepared, 0.2), WHITE)
    assert_near(pixel(prepared, 0.8), RED)
    assert prepared.warnings == (
        "only 8 of the 16 bits of its transparent colour count, so similar colours are transparent, too",
    )


def test_a_transparent_colour_of_the_wrong_length_costs_only_its_record() -> None:
    """A tRNS chunk that is too short for its colour type is a failed record or a picture."""
    for size in (0, 1, 3, 7):
        data = deep_png((1, 2, 3), (65535, 0, 0), (1, 2, 3))
        chunk = png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
        outcome(data.replace(chunk, png_chunk(b"tRNS", bytes(size))))
