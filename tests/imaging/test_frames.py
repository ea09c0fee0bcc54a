"""Files of several pages, frames or pictures, of which only the first is read."""

import io
import struct
import zlib

import pytest
from pictures import OPTIONS, PLAIN, SMALL, animation, encoded, jpeg_with
from PIL import Image

from vlmbatch.images import MOST_FRAMES
from vlmbatch.imaging.gif.structure import MOST_BLOCKS, count_frames
from vlmbatch.imaging.prepare import prepare

TOLD = "the file has 3 pages or frames; only the first was read"
SCREEN = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
NETSCAPE = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "MPO", "TIFF", "AVIF"])
def test_what_was_not_read_is_a_warning(name: str) -> None:
    """A record of a file with three pages or frames warns that only the first was read."""
    assert TOLD in prepare(animation(name), OPTIONS).warnings
    assert prepare(encoded(SMALL, "JPEG" if name == "MPO" else name), OPTIONS).warnings == ()


def test_the_number_of_frames_of_a_gif_is_that_of_pillow() -> None:
    """The count by blocks is Pillow's count, with tables of colours, comments and loops."""
    frames = [Image.effect_noise((40, 30), 60 + n).convert("P") for n in range(7)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"x" * 600)
    with Image.open(io.BytesIO(data)) as image:
        assert count_frames(data, MOST_FRAMES) == image.n_frames == 7
    assert count_frames(encoded(SMALL, "GIF"), MOST_FRAMES) == 1


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (SCREEN + FRAME * 3 + b";", 3),
        (SCREEN + NETSCAPE + FRAME * 2 + b";", 2),
        (SCREEN + FRAME * 3, 3),  # without its end
        (SCREEN + FRAME * 2 + FRAME[:5], 3),  # cut in the third frame
        (SCREEN + FRAME + b"junk", 1),
        (SCREEN + FRAME * (MOST_FRAMES + 50), MOST_FRAMES),
        (SCREEN + FRAME[:-4] + b"\x01x" * (MOST_BLOCKS + 50) + b"\x00" + FRAME, 1),
        (SCREEN, 1),
        (b"GIF89a", 1),
    ],
)
def test_counting_the_frames_of_a_gif_is_bounded(data: bytes, frames: int) -> None:
    """Odd and hostile GIFs are counted up to a limit, and never fail."""
    assert count_frames(data, MOST_FRAMES) == frames


def test_a_claim_of_two_billion_frames_is_cut() -> None:
    """The header of an animated PNG may claim any number."""
    data = animation("PNG")
    at = data.index(b"acTL")
    claimed = data[:at] + b"acTL" + struct.pack(">II", 2**31 - 1, 0)
    crc = struct.pack(">I", zlib.crc32(claimed[at:]))
    prepared = prepare(claimed + crc + data[at + 16 :], OPTIONS)
    assert prepared.frames == MOST_FRAMES
    assert "the file has at least 10,000 pages or frames; only the first was read" in prepared.warnings


def with_second(kind: int, second: bytes) -> bytes:
    """A JPEG with the index of an MPO and a second picture of this kind after it."""
    entries = struct.pack(">IIIHH", 0x030000, 0, 0, 0, 0)

    def index(offset: int) -> bytes:
        tags = struct.pack(">HHI", 0xB000, 7, 4) + b"0100" + struct.pack(">HHII", 0xB001, 4, 1, 2)
        tags += struct.pack(">HHII", 0xB002, 7, 32, 50)
        body = b"MPF\0MM\0*\0\0\0\x08\0\3" + tags + bytes(4) + entries
        body += struct.pack(">IIIHH", kind, len(second), offset, 0, 0)
        return b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body

    whole = len(PLAIN) + len(index(0))
    return PLAIN[:2] + index(whole - 10) + PLAIN[2:] + second


@pytest.mark.parametrize(
    ("kind", "second", "frames"),
    [
        (0, encoded(SMALL.resize((16, 12)), "JPEG"), 1),  # a gain map without a mark
        (0, PLAIN, 2),
        (0, encoded(SMALL.convert("L"), "JPEG"), 1),  # a gain map without a mark, in full size
        (0, jpeg_with(PLAIN, 0xE1, b"hdrgm:11"), 1),  # gain maps in full size and in colour
        (0, jpeg_with(PLAIN, 0xE1, b"xmlns:HDRGainMap="), 1),
        (0, jpeg_with(PLAIN, 0xE1, b"urn:com:apple:photo:2020:aux:hdrgainmap"), 1),
        (0, jpeg_with(PLAIN, 0xE2, b"urn:iso:std:iso:ts:21496:-1"), 1),
        (0, encoded(SMALL.resize((16, 12)), "JPEG") + b"SEFHe\x00SEFT", 1),  # Samsung's data behind it
        (0x050000, PLAIN, 1),  # a gain map that says so
        (0x040000, PLAIN, 1),  # the photo before it was edited
        (0x010002, PLAIN, 1),  # a preview
        (0x010001, encoded(SMALL.resize((16, 12)), "JPEG"), 1),
        (0x020002, encoded(SMALL.resize((16, 12)), "JPEG"), 2),  # the other eye
        (0x020001, PLAIN, 2),  # a part of a panorama
        (0x020003, PLAIN, 2),  # another angle
        (0, b"", 1),
    ],
)
def test_a_gain_map_or_preview_is_no_second_picture(kind: int, second: bytes, frames: int) -> None:
    """Phones put a map of brightness after a photo, and cameras a preview: neither counts as a picture."""
    prepared = prepare(with_second(kind, second), OPTIONS)
    assert prepared.frames == frames
    assert len(prepared.warnings) == frames - 1
