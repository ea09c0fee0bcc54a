"""The transparent colour of a PNG becomes white, at each number of bits a channel."""

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


@pytest.mark.parametrize("key", [(4095, 0, 4095), (0, 0, 0), (4000, 3000, 17)])
def test_the_transparent_colour_of_a_dark_picture_is_white(key: tuple[int, int, int]) -> None:
    """If no sample has more than 12 bits, the picture is brightened, and so is its transparent colour."""
    prepared = prepare(deep_png(key, (15, 0, 4080), key), OPTIONS)
    assert_near(pixel(prepared, 0.2), WHITE)
    assert_near(pixel(prepared, 0.8), (1, 0, 254))


def shallow_png(bits: int, left: int, right: int, key: int) -> bytes:
    """A grey PNG of 2 to 8 bits a sample, of two halves of 40x60 pixels each, with this transparent grey."""
    packed = "".join(f"{value:0{bits}b}" * 40 for value in (left, right))
    row = b"\0" + int(packed, 2).to_bytes(10 * bits, "big")
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 80, 60, bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", key)),
        (b"IDAT", zlib.compress(row * 60)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("more", [0, 0x0100])
@pytest.mark.parametrize(("bits", "grey"), [(2, 0), (2, 1), (2, 2), (4, 1), (4, 7), (8, 85)])
def test_the_transparent_grey_has_the_bits_of_the_samples(bits: int, grey: int, more: int) -> None:
    """A grey of few bits is transparent, and the one above it is not; higher bits of it do not count."""
    prepared = prepare(shallow_png(bits, grey, grey + 1, grey + more), OPTIONS)
    assert_near(pixel(prepared, 0.2), WHITE)
    assert_near(pixel(prepared, 0.8), ((grey + 1) * 255 // (2**bits - 1),) * 3)


def test_a_transparent_colour_of_the_wrong_length_costs_only_its_record() -> None:
    """A tRNS chunk that is too short for its colour type is a failed record or a picture."""
    for size in (0, 1, 3, 7):
        data = deep_png((1, 2, 3), (65535, 0, 0), (1, 2, 3))
        chunk = png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
        outcome(data.replace(chunk, png_chunk(b"tRNS", bytes(size))))
