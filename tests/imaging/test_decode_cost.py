"""The memory that prepare() reserves for decoding, and its behaviour if memory runs out."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from pictures import OPTIONS, encoded, multi_scan
from PIL import Image
from tiffs import tiff

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging.prepare import prepare

SIDE = 1600
PIXELS = SIDE * SIDE


class Rooms:
    """Records each requested weight; raises MemoryError inside the first `failing` rooms."""

    def __init__(self, failing: int = 0) -> None:
        self.asked: list[int | None] = []
        self.failing = failing

    @contextmanager
    def __call__(self, weight: int | None) -> Iterator[None]:
        self.asked.append(weight)
        if len(self.asked) <= self.failing:
            raise MemoryError
        yield


@pytest.mark.parametrize(
    ("name", "options", "least", "most"),
    [
        ("JPEG", {}, 1, 4),  # decoded at half size
        ("JPEG", {"progressive": True}, 7, 10),
        ("PNG", {}, 4, 8),
        ("WEBP", {"method": 0}, 16, 21),
        ("TIFF", {}, 4, 8),
        ("TIFF", {"compression": "tiff_lzw"}, 4, 12),
        ("AVIF", {"speed": 10}, 9, 16),
        ("GIF", {}, 5, 10),
        ("BMP", {}, 4, 8),
    ],
)
def test_the_cost_of_a_format_is_known_before_decoding(
    name: str, options: dict[str, object], least: int, most: int
) -> None:
    """The reserved bytes a pixel match benchmarks/decode_memory.py: a WebP costs ten times a JPEG."""
    rooms = Rooms()
    prepare(
        encoded(Image.new("RGB", (SIDE, SIDE), "teal"), name, **options), ImageOptions(max_size=512), rooms
    )
    weight = rooms.asked[-1]  # before it, a blank picture is probed for lost data
    assert weight is not None
    assert least <= (weight - 1_000_000) / PIXELS <= most


def test_transparency_costs_more() -> None:
    """A picture with transparency reserves memory for its copy on white."""
    weights = []
    for mode in ("RGB", "RGBA"):
        rooms = Rooms()
        prepare(encoded(Image.new(mode, (SIDE, SIDE), "teal")), OPTIONS, rooms)
        weights += rooms.asked
    assert weights[1] > 2 * weights[0]


def test_several_scans_cost_as_much_as_a_progressive_jpeg() -> None:
    """A JPEG with one scan a colour reserves as much as a progressive one, though no flag marks it."""
    rooms = Rooms()
    prepare(multi_scan(Image.new("RGB", (SIDE, SIDE), "teal")), ImageOptions(max_size=512), rooms)
    (weight,) = rooms.asked
    assert weight is not None
    assert weight > 6 * PIXELS


def test_a_big_endian_big_tiff_costs_a_copy_of_its_file() -> None:
    """A file that is written anew before it is decoded lies in memory twice."""
    samples, costs = np.zeros((SIDE, SIDE), "f4"), []
    for order in "<>":
        rooms = Rooms()
        prepare(tiff(samples, bigtiff=True, byteorder=order), ImageOptions(max_size=512), rooms)
        costs.append(rooms.asked[-1] or 0)
    assert costs[1] - costs[0] >= samples.nbytes


def test_a_tiff_that_is_turned_costs_a_copy() -> None:
    """Pillow rotates a TIFF as a whole when it loads it: three or four bytes a pixel more."""
    rooms = Rooms()
    for orientation in (1, 6):
        data = encoded(Image.new("RGB", (SIDE, SIDE), "teal"), "TIFF", tiffinfo={274: orientation})
        prepare(data, OPTIONS, rooms)
    upright, turned = rooms.asked
    assert upright is not None
    assert turned is not None
    assert turned - upright >= 3 * PIXELS


def test_a_tile_costs_what_it_declares() -> None:
    """A tile of 400 megapixels in a picture of 96x96 is unpacked as a whole, and reserves as much."""
    data = bytearray(encoded(Image.new("L", (96, 96)), "TIFF", compression="tiff_adobe_deflate"))
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    tags = [bytes(data[at + 2 + 12 * n : at + 14 + 12 * n]) for n in range(entries)]
    tile = {278: (322, 20_000), 273: (324, None), 279: (325, None)}  # rows a strip, offsets, byte counts
    turned = [_retagged(tag, tile) for tag in tags] + [struct.pack("<HHII", 323, 4, 1, 20_000)]
    table = struct.pack("<H", len(turned)) + b"".join(sorted(turned, key=lambda t: t[:2][::-1])) + bytes(4)
    struct.pack_into("<I", data, 4, len(data))
    rooms = Rooms()
    with suppress(ImageError):
        prepare(bytes(data) + table, OPTIONS, rooms)
    assert rooms.asked[0] is not None
    assert rooms.asked[0] > 400_000_000


def _retagged(entry: bytes, tags: dict[int, tuple[int, int | None]]) -> bytes:
    tag, kind, count, value = struct.unpack("<HHII", entry)
    new, number = tags.get(tag, (tag, None))
    return struct.pack("<HHII", new, 4 if number else kind, count, number or value)


def test_an_original_that_is_sent_as_it_is_asks_for_little() -> None:
    """A JPEG that is not encoded again reserves little, since only its headers are decoded."""
    rooms = Rooms()
    prepare(encoded(Image.new("RGB", (SIDE, SIDE), "teal"), "JPEG"), ImageOptions(max_size=0), rooms)
    (weight,) = rooms.asked
    assert weight is not None
    assert weight < 1_000_000 + PIXELS


def test_out_of_memory_is_tried_once_more_alone() -> None:
    """An image that runs out of memory is decoded again while no other is, and fails only then."""
    picture = encoded(Image.new("RGB", (64, 64), "teal"))
    rooms = Rooms(failing=1)
    assert prepare(picture, OPTIONS, rooms).width == 64
    assert rooms.asked[1] is None
    with pytest.raises(ImageError, match="not enough memory") as failed:
        prepare(picture, OPTIONS, Rooms(failing=2))
    assert failed.value.kind == "too_large"


def test_room_is_given_back_when_decoding_fails() -> None:
    """A broken picture releases its memory."""
    held = 0

    @contextmanager
    def room(_weight: int | None) -> Iterator[None]:
        nonlocal held
        held += 1
        try:
            yield
        finally:
            held -= 1

    picture = encoded(Image.radial_gradient("L"), "PNG")
    with pytest.raises(ImageError, match="truncated"):
        prepare(picture[: len(picture) // 2], OPTIONS, room)
    assert held == 0
