"""JPEGs of which a part was lost: zeros, erased flash memory, data or scans that are missing."""

import random
from typing import Any

import pytest
from pictures import OPTIONS, PLAIN, encoded, jpeg_with, multi_scan, outcome, photo, psnr, sent
from PIL import Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.prepare import prepare

PHOTO = photo(400, 300)
BLANK = Image.new("RGB", (1200, 900), "white")
HALF = photo(1200, 900)
HALF.paste((255, 255, 255), (0, 300, 1200, 900))
START, RUN = b"\xff\xda", bytes(256)

CODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize": True, "quality": 50},
    "4:4:4": {"subsampling": 0, "optimize": True, "quality": 92},
    "restarts": {"restart_marker_rows": 1, "optimize": True},
    "progressive": {"progressive": True},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
}


def coded(image: Image.Image, coding: str, mode: str = "RGB") -> bytes:
    options = {k: v for k, v in CODINGS[coding].items() if mode == "RGB" or k != "subsampling"}
    return encoded(image.convert(mode), "JPEG", **options)


def filled(data: bytes, start: int, stop: int, value: int) -> bytes:
    return data[:start] + bytes([value]) * (stop - start) + data[stop:]


@pytest.mark.parametrize("max_size", [0, 200], ids=["as it is", "decoded"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("value", [0, 0xFF], ids=["zeros", "FF"])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_lost_rest_is_found(coding: str, value: int, mode: str, max_size: int) -> None:
    """A JPEG whose rest is zeros or FF, before a whole end mark, is refused, whatever its coding is."""
    data = coded(PHOTO, coding, mode)
    for start in (len(data) // 2, len(data) - 600):
        with pytest.raises(ImageError, match="the JPEG is damaged") as caught:
            prepare(filled(data, start, len(data) - 2, value), ImageOptions(max_size=max_size))
        assert caught.value.kind == "bad_image"


@pytest.mark.parametrize("coding", ["baseline", "optimised", "4:4:4", "restarts"])
def test_a_lost_sector_is_found(coding: str) -> None:
    """A sector of 512 zeros is found anywhere in the coded data of a JPEG with one scan."""
    data = coded(PHOTO, coding)
    first = data.index(START) + 14
    for start in random.Random(4).sample(range(first, len(data) - 600), 12):
        assert isinstance(outcome(filled(data, start, start + 512, 0)), ImageError), start


def test_a_lost_part_of_one_scan_for_each_colour_is_found() -> None:
    """Zeros are found in each of the scans of a baseline JPEG with one scan for each colour."""
    data = multi_scan(PHOTO)
    starts = [at for at in range(len(data)) if data.startswith(START, at)]
    for start in starts:
        assert isinstance(outcome(filled(data, start + 30, start + 600, 0)), ImageError)
    assert isinstance(outcome(filled(data, starts[1] - 300, starts[2] - 100, 0)), ImageError)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("colour", ["white", "black", (90, 128, 127)], ids=str)
def test_blank_pictures_are_sound(coding: str, mode: str, colour: str) -> None:
    """A picture of one colour is sent without a warning, though it may consist of zeros."""
    prepared = prepare(coded(Image.new("RGB", BLANK.size, colour), coding, mode), ImageOptions(max_size=0))
    assert prepared.warnings == ()


@pytest.mark.parametrize("coding", CODINGS)
def test_half_blank_pictures_are_sound(coding: str) -> None:
    """A photo above or below a white area is sent without a warning."""
    for image in (HALF, HALF.rotate(180)):
        prepared = prepare(coded(image, coding), ImageOptions(max_size=0))
        assert prepared.warnings == ()
        assert psnr(sent(prepared), image) > 25


def test_some_blank_pictures_have_long_runs() -> None:
    """The tests of blank pictures test something: long runs of zeros are in sound files."""
    assert RUN in coded(BLANK, "optimised")
    assert RUN in coded(BLANK, "progressive")
    assert RUN in coded(HALF, "optimised", "L")


def test_more_zeros_than_a_blank_picture_has_are_damage() -> None:
    """Zeros that would be more blocks than the picture has, or fewer, are not taken for a blank area."""
    data = coded(HALF, "optimised", "L")
    blank = data.index(RUN)
    for start in (blank - 4000, blank - 1500):
        assert isinstance(outcome(filled(data, start, start + 1000, 0)), ImageError)
    assert isinstance(outcome(data[:blank] + RUN * 2 + data[blank:]), ImageError)
    assert isinstance(outcome(data[:blank] + data[blank + 256 :]), ImageError)


def test_zeros_elsewhere_are_no_damage() -> None:
    """Zeros in metadata, behind the end mark, and between a whole picture and its end mark are sound."""
    for data in (jpeg_with(PLAIN, 0xE1, bytes(2000)), PLAIN + bytes(2000), PLAIN + b"\xff" * 2000):
        assert prepare(data, OPTIONS).warnings == ()
    for padding in (bytes(2000), b"\xff" * 2000):
        assert prepare(PLAIN[:-2] + padding + PLAIN[-2:], OPTIONS).warnings == ()


@pytest.mark.parametrize("tail", [b"", bytes(300)], ids=["bare", "zeros behind"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("coding", ["baseline", "optimised", "4:4:4", "restarts"])
def test_data_that_ends_too_early_is_found(coding: str, mode: str, tail: bytes) -> None:
    """A JPEG that has an end mark, but not all rows, is refused when it is decoded, at any scale."""
    data = coded(PHOTO, coding, mode)
    for max_size in (50, 100, 200, 300):
        options = ImageOptions(max_size=max_size)
        assert isinstance(outcome(data[: len(data) // 2] + data[-2:] + tail, options), ImageError)
        whole = outcome(data + tail, options)
        assert isinstance(whole, PreparedImage)
        assert whole.warnings == ()


def test_a_lost_last_row_is_a_warning() -> None:
    """If only the last blocks are missing, the picture is sent with a warning."""
    prepared = prepare(coded(PHOTO, "baseline")[:-40] + b"\xff\xd9", ImageOptions(max_size=300))
    assert prepared.warnings == (
        "its last rows are damaged: the picture data ends too early; get a whole copy",
    )


@pytest.mark.parametrize("max_size", [0, 200], ids=["as it is", "decoded"])
def test_missing_scans_are_a_warning(max_size: int) -> None:
    """A progressive JPEG without its last scans is coarse: it is sent with a warning."""
    data = coded(PHOTO, "progressive")
    cut = data[: data.rindex(START)] + data[-2:]
    prepared = prepare(cut, ImageOptions(max_size=max_size))
    assert prepared.warnings == (
        "scans of the JPEG are missing, so its picture is coarse; perhaps it was cut: get a whole copy",
    )


def test_headers_of_damaged_files_may_be_anything() -> None:
    """Whatever the headers of a file with a run of zeros say, nothing but ImageError is raised."""
    chance = random.Random(6)
    for coding in CODINGS:
        data = coded(photo(96, 64), coding)
        first, last = data.index(b"\xff\xdb"), data.index(START) + 14
        for _ in range(60):
            broken = bytearray(data[:-2] + RUN + data[-2:])
            for _ in range(chance.choice((1, 2, 5))):
                broken[chance.randrange(first, last)] = chance.choice(
                    (0, 1, 0x7F, 0xFF, chance.randrange(256))
                )
            outcome(bytes(broken))
