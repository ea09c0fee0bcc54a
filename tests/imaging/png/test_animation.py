"""Animated PNGs with a still picture that is not part of the animation (PNG 3rd edition, section 4.9)."""

import struct
from contextlib import nullcontext

import pytest
from pictures import BLUE, GREEN, OPTIONS, RED, WHITE, assert_near, encoded, outcome, pixel, png_chunk
from PIL import Image, ImageFile

from vlmbatch.images import PreparedImage
from vlmbatch.imaging.decode import decoding
from vlmbatch.imaging.decode_cost import decode_bytes
from vlmbatch.imaging.prepare import inspect, prepare

SIZE = (120, 90)
STILL = Image.new("RGB", SIZE, RED)
FULL = (0, 0, *SIZE)
Box = tuple[int, int, int, int]


def body_of(image: Image.Image, kind: bytes) -> bytes:
    data = encoded(image)
    at = data.index(kind)
    return data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]


def control(number: int, box: Box = FULL, blend: int = 1) -> bytes:
    """The chunk that begins a frame at this box (left, top, right, bottom)."""
    x, y, right, bottom = box
    return png_chunk(b"fcTL", struct.pack(">5IHHBB", number, right - x, bottom - y, x, y, 1, 10, 0, blend))


def animated(still: Image.Image, *frames: bytes, claimed: int = 1) -> bytes:
    """A PNG with a still picture, and these chunks behind it."""
    data = encoded(still)
    at = data.index(b"IDAT") - 4
    count = png_chunk(b"acTL", struct.pack(">II", claimed, 0))
    return data[:at] + count + data[at:-12] + b"".join(frames) + data[-12:]


def frame(number: int, image: Image.Image, x: int = 0, y: int = 0, blend: int = 1) -> bytes:
    box = (x, y, x + image.width, y + image.height)
    data = png_chunk(b"fdAT", struct.pack(">I", number + 1) + body_of(image, b"IDAT"))
    return control(number, box, blend) + data


@pytest.mark.parametrize("blend", [0, 1], ids=["source", "over"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_the_first_frame_is_sent_and_not_the_still(mode: str, blend: int) -> None:
    """The first frame of the animation is sent, and a single frame is no reason for a warning."""
    shown = Image.new("RGB", SIZE, "white")
    shown.paste((0, 0, 0), (60, 0, 120, 90))
    data = animated(STILL.convert(mode), frame(0, shown.convert(mode), blend=blend))
    prepared = prepare(data, OPTIONS)
    assert_near(pixel(prepared, 0.25), WHITE)
    assert_near(pixel(prepared, 0.75), (0, 0, 0))
    assert (prepared.frames, prepared.warnings) == (1, ())
    assert inspect(data).frames == 1


def test_frames_are_those_of_the_animation() -> None:
    """The still picture does not count as a frame."""
    frames = [frame(2 * n, Image.new("RGB", SIZE, colour)) for n, colour in enumerate((GREEN, BLUE, RED))]
    prepared = prepare(animated(STILL, *frames, claimed=3), OPTIONS)
    assert_near(pixel(prepared), GREEN)
    assert prepared.frames == 3
    assert prepared.warnings == ("the file has 3 pages or frames; only the first was read",)


@pytest.mark.parametrize("blend", [0, 1], ids=["source", "over"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_smaller_first_frame_lies_on_white(mode: str, blend: int) -> None:
    """A first frame that covers a part of the canvas lies on white, and not on the still picture."""
    part = Image.new("RGB", (60, 45)).convert(mode)
    prepared = prepare(animated(STILL.convert(mode), frame(0, part, 60, 45, blend)), OPTIONS)
    assert (prepared.width, prepared.height) == SIZE
    assert_near(pixel(prepared, 0.25, 0.25), WHITE)
    assert_near(pixel(prepared, 0.75, 0.75), (0, 0, 0))
    assert prepared.frames == 1


def test_half_transparent_pixels_are_not_darkened() -> None:
    """Half transparent pixels of the first frame lie on white only."""
    glass = Image.new("RGBA", SIZE, (0, 0, 255, 128))
    assert_near(pixel(prepare(animated(STILL.convert("RGBA"), frame(0, glass)), OPTIONS)), (127, 127, 255))


def test_a_palette_is_that_of_the_file() -> None:
    """The first frame of a file with a palette is in the colours of that palette."""
    still = Image.new("P", SIZE, 0)
    still.putpalette([*RED, *GREEN, *BLUE])
    shown = Image.new("P", SIZE, 2)
    shown.putpalette([*RED, *GREEN, *BLUE])
    assert_near(pixel(prepare(animated(still, frame(0, shown)), OPTIONS)), BLUE)


@pytest.mark.parametrize("claimed", [0, 1, 2, 2**31, 2**32 - 1])
@pytest.mark.parametrize(
    "frames",
    [
        b"",
        control(0),
        control(0) + control(1),
        control(7) + control(8),
        png_chunk(b"fdAT", b"\0\0"),
        control(0, (0, 0, 500, 500)),
        control(0) + png_chunk(b"fdAT", struct.pack(">I", 1) + b"garbage"),
    ],
    ids=["nothing", "no data", "two without data", "order", "short", "too large", "garbage"],
)
def test_without_a_first_frame_the_still_is_sent(frames: bytes, claimed: int) -> None:
    """If the animation is broken or missing, the still picture is sent, whatever number is claimed."""
    prepared = outcome(animated(STILL, frames, claimed=claimed))
    assert isinstance(prepared, PreparedImage)
    assert_near(pixel(prepared), RED)


def test_both_pictures_count_for_memory() -> None:
    """The memory for a file with a still picture is more than twice that for a plain PNG."""

    def needed(data: bytes) -> int:
        with decoding(data) as image:
            assert isinstance(image, ImageFile.ImageFile)
            return decode_bytes(image, image.size, (32, 32))

    large = Image.new("RGB", (1000, 1000), RED)
    assert needed(animated(large, frame(0, large))) > 2 * needed(encoded(large))
    prepare(animated(large, frame(0, large)), OPTIONS, lambda _: nullcontext())
