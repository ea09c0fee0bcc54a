"""What prepare() says that decoding will take, and what it does where that is not to be had."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pictures import OPTIONS, encoded
from PIL import Image

from vlmbatch.errors import ImageError
from vlmbatch.imaging import prepare
from vlmbatch.option_groups import ImageOptions

SIDE = 1600
PIXELS = SIDE * SIDE


class Rooms:
    """Remembers what was asked for; raises MemoryError inside the first so many rooms."""

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
        ("JPEG", {}, 1, 3),  # decoded at half size
        ("JPEG", {"progressive": True}, 7, 10),
        ("PNG", {}, 4, 8),
        ("WEBP", {"method": 0}, 16, 21),
        ("TIFF", {}, 4, 8),
        ("TIFF", {"compression": "tiff_lzw"}, 4, 12),
        ("AVIF", {"speed": 10}, 9, 14),
        ("GIF", {}, 5, 10),
        ("BMP", {}, 4, 8),
    ],
)
def test_what_a_format_costs_is_known_before_it_is_decoded(
    name: str, options: dict[str, object], least: int, most: int
) -> None:
    """Bytes a pixel, as benchmarks/decode_memory.py measures them: a WebP takes ten times a JPEG's."""
    rooms = Rooms()
    prepare(
        encoded(Image.new("RGB", (SIDE, SIDE), "teal"), name, **options), ImageOptions(max_size=512), rooms
    )
    (weight,) = rooms.asked
    assert weight is not None
    assert least <= (weight - 1_000_000) / PIXELS <= most


def test_transparency_costs_more() -> None:
    """A picture that has to be put on white is copied, and says so."""
    weights = []
    for mode in ("RGB", "RGBA"):
        rooms = Rooms()
        prepare(encoded(Image.new(mode, (SIDE, SIDE), "teal")), OPTIONS, rooms)
        weights += rooms.asked
    assert weights[1] > 2 * weights[0]


def test_an_original_that_is_sent_as_it_is_asks_for_little() -> None:
    """It is decoded at an eighth, only to see that it is whole."""
    rooms = Rooms()
    prepare(encoded(Image.new("RGB", (SIDE, SIDE), "teal"), "JPEG"), ImageOptions(max_size=0), rooms)
    (weight,) = rooms.asked
    assert weight is not None
    assert weight < 1_000_000 + PIXELS


def test_out_of_memory_is_tried_once_more_alone() -> None:
    """What fails beside others is decoded again while no other is, and only then fails, by name."""
    picture = encoded(Image.new("RGB", (64, 64), "teal"))
    rooms = Rooms(failing=1)
    assert prepare(picture, OPTIONS, rooms).width == 64
    assert rooms.asked[1] is None
    with pytest.raises(ImageError, match="not enough memory") as failed:
        prepare(picture, OPTIONS, Rooms(failing=2))
    assert failed.value.kind == "too_large"


def test_room_is_given_back_when_decoding_fails() -> None:
    """A broken picture leaves no room taken."""
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
