"""Resizing: how far the decoder shrinks, how much quality that costs, and that SIMD changes nothing else."""

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import PIL
import pytest
from pictures import (
    BLUE,
    EVERY_FORMAT,
    GREEN,
    HAS_SIMD,
    RED,
    assert_near,
    encoded,
    exif,
    outcome,
    photo,
    pixel,
    psnr,
    quarters,
    sent,
    swapped_profile,
)
from PIL import Image
from selection import mostly_long

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging import resize
from vlmbatch.imaging.prepare import prepare
from vlmbatch.imaging.sizing import Sizing

PHOTO = photo(2400, 1800)
PHOTO_JPEG = encoded(PHOTO, "JPEG", quality=92)
ODD_JPEG = encoded(PHOTO.crop((0, 0, 2397, 1797)), "JPEG", quality=92)

needs_simd = pytest.mark.skipif(not HAS_SIMD, reason="cykooz.resizer is not installed")


@contextmanager
def package(there: bool) -> Iterator[None]:
    """Behave as if cykooz.resizer is installed, or is not."""
    with pytest.MonkeyPatch.context() as patch:
        if not there:
            patch.setitem(sys.modules, "cykooz_resizer", None)
        resize._simd_resize.cache_clear()
        assert resize.has_simd() == there
        yield
    resize._simd_resize.cache_clear()


@pytest.fixture(params=[False, pytest.param(True, marks=needs_simd)], ids=["Pillow", "SIMD"])
def has_simd(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Run the test once without the package and once with it."""
    with package(request.param):
        yield request.param


def drafted(size: tuple[int, int], max_size: int, **options: Any) -> Image.Image:
    """A picture of this size after draft() has set up its decoder."""
    image = Image.open(BytesIO(encoded(Image.new("RGB", size), "JPEG", **options)))
    resize.draft(image, Sizing(longest=max_size)(size))
    return image


def test_a_12_megapixel_photo_is_decoded_at_three_eighths() -> None:
    """A 12-megapixel photo is decoded at 3/8, smaller than the 1/2 of Pillow's own draft()."""
    with package(there=False):
        assert drafted((4000, 3000), 1024).size == (1500, 1125)


@needs_simd
def test_with_simd_it_is_decoded_at_a_half() -> None:
    """With SIMD it is decoded at 1/2, since resizing is cheap then and decoding at 3/8 is not."""
    with package(there=True):
        assert drafted((4000, 3000), 1024).size == (2000, 1500)


@pytest.mark.parametrize(
    ("size", "max_size", "wanted"),
    [
        ((6000, 4000), 1024, (1500, 1000)),
        ((4000, 3000), 256, (500, 375)),
        ((1632, 1224), 1024, (1632, 1224)),
        ((2048, 1536), 1024, (2048, 1536)),
        ((2592, 1944), 1024, (1296, 972)),
        ((4001, 3001), 448, (1001, 751)),
        ((1000, 1000), 1024, (1000, 1000)),
        ((10_000, 3), 1024, (5000, 2)),
    ],
)
@pytest.mark.usefixtures("has_simd")
def test_the_decoder_shrinks_as_far_as_quality_allows(
    size: tuple[int, int], max_size: int, wanted: tuple[int, int]
) -> None:
    """The decoded size is always well above the target, and a small picture is not shrunk."""
    image = drafted(size, max_size)
    assert image.size == wanted
    image.load()
    assert image.size == wanted


def likeness(data: bytes, max_size: int) -> float:
    """The PSNR in dB between the sent picture and a full decode with a Lanczos filter."""
    quick = sent(prepare(data, ImageOptions(max_size=max_size, quality=95)))
    return psnr(quick.convert("L"), exact(data, quick.size))


@cache
def exact(data: bytes, size: tuple[int, int]) -> Image.Image:
    """The brightness after a full decode and a Lanczos filter, which is the same with and without SIMD."""
    whole = Image.open(BytesIO(data)).convert("RGB")
    return whole.resize(size, Image.Resampling.LANCZOS).convert("L")


@cache
def photo_png() -> bytes:
    return encoded(PHOTO, compress_level=1)


@pytest.mark.parametrize(
    "max_size", mostly_long([1600, 1150, 1000, 800, 640, 480, 400, 230, 150, 96], [1150, 640, 150])
)
@pytest.mark.parametrize("source", ["even", "odd", "PNG"])
@pytest.mark.usefixtures("has_simd")
def test_shrinking_keeps_the_quality(source: str, max_size: int) -> None:
    """At any scale, the sent picture is closer to the exact one than a box or Hamming filter gets."""
    data = {"even": PHOTO_JPEG, "odd": ODD_JPEG, "PNG": photo_png()}[source]
    assert likeness(data, max_size) > 36.5


@pytest.mark.usefixtures("has_simd")
def test_the_far_side_stays_where_it_is() -> None:
    """The fraction of a pixel that a decoder adds to its sides does not shift the picture."""
    lines = Image.new("L", (1604, 1604), "white")
    for x in range(1500, 1604, 26):
        lines.paste(0, (x, 0, x + 13, 1604))
    data = encoded(lines, "JPEG", quality=95)
    assert likeness(data, 401) > 34  # 24 if 401.5 pixels were shrunk to 401


def test_every_scale_is_decoded_as_it_is_announced() -> None:
    """The scaled picture is complete for any sides, sampling and coding."""
    chance = random.Random(5)
    with package(there=False):
        for _ in range(80):
            size = (chance.randrange(620, 900), chance.randrange(620, 900))
            options = {"subsampling": chance.randrange(3), "progressive": chance.random() < 0.3}
            data = encoded(quarters(*size), "JPEG", **options)
            prepared = prepare(data, ImageOptions(max_size=chance.choice((48, 90, 130, 300, 400))))
            for x, y, colour in ((0.2, 0.2, RED), (0.8, 0.2, GREEN), (0.2, 0.8, BLUE)):
                assert_near(pixel(prepared, x, y), colour, 20)


@pytest.mark.parametrize("name", EVERY_FORMAT)
@pytest.mark.parametrize("max_size", [100, 50])
@needs_simd
def test_both_ways_send_the_same(name: str, max_size: int) -> None:
    """A picture has the same facts and looks the same with the package and without it."""
    data = EVERY_FORMAT[name]()
    both = []
    for there in (False, True):
        with package(there):
            both.append(prepare(data, ImageOptions(max_size=max_size, quality=95)))
    plain, fast = both
    for fact in ("width", "height", "original_width", "original_height", "frames", "warnings"):
        assert getattr(plain, fact) == getattr(fast, fact)
    assert psnr(sent(plain), sent(fast)) > 28
    assert psnr(sent(plain).convert("L"), sent(fast).convert("L")) > 31


@needs_simd
def test_both_ways_fail_alike() -> None:
    """A broken picture has the same outcome with the package and without it."""
    chance = random.Random(11)
    for data in [make() for make in EVERY_FORMAT.values()]:
        for _ in range(6):
            broken = bytearray(data[: chance.choice((len(data), chance.randrange(len(data))))])
            for _ in range(chance.randrange(3) if broken else 0):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            ends = []
            for there in (False, True):
                with package(there):
                    end = outcome(bytes(broken), ImageOptions(max_size=48))
                is_error = isinstance(end, ImageError)
                ends.append((end.kind, str(end)) if is_error else (end.width, end.height, end.warnings))
            assert ends[0] == ends[1]


@pytest.mark.usefixtures("has_simd")
def test_hidden_colours_do_not_spread() -> None:
    """Red under transparent pixels does not tint the edges, with either way to resize."""
    image = Image.new("RGBA", (400, 400), (*RED, 0))
    image.paste((0, 0, 0, 255), (100, 100, 300, 300))
    red, green, _ = sent(prepare(encoded(image), ImageOptions(max_size=64, quality=100))).split()
    assert psnr(red, green) > 40


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("profile", [None, swapped_profile()], ids=["sRGB", "profile"])
@pytest.mark.usefixtures("has_simd")
def test_a_shrunk_jpeg_is_turned_and_brought_to_srgb(orientation: int, profile: bytes | None) -> None:
    """A JPEG that is resized as YCbCr is rotated and converted to sRGB correctly."""
    image = Image.new("RGB", (640, 480), RED)
    image.paste(BLUE, (0, 240, 640, 480))
    options = {"icc_profile": profile} if profile else {}
    data = encoded(image, "JPEG", exif=exif(orientation), **options)
    prepared = prepare(data, ImageOptions(max_size=100))
    first, last = GREEN if profile else RED, BLUE
    at = {1: (0.5, 0.1), 3: (0.5, 0.9), 6: (0.9, 0.5), 8: (0.1, 0.5)}[orientation]
    assert_near(pixel(prepared, *at), first)
    assert_near(pixel(prepared, 1 - at[0], 1 - at[1]), last)


@pytest.mark.usefixtures("has_simd")
def test_a_jpeg_that_codes_rgb_is_shrunk_as_rgb() -> None:
    """A JPEG that is RGB by Adobe's segment or by its component names is not resized as YCbCr."""
    data = encoded(quarters(640, 480), "JPEG", keep_rgb=True)
    no_adobe = data.replace(b"\xff\xee\x00\x0eAdobe", b"\xff\xe3\x00\x0eAdobe")
    no_names = data.replace(b"R\x11\x00G\x11\x00B\x11\x00", b"\x01\x11\x00\x02\x11\x00\x03\x11\x00")
    no_names = no_names.replace(b"R\x00G\x00B\x00", b"\x01\x00\x02\x00\x03\x00")
    assert len({data, no_adobe, no_names}) == 3
    for coded in (data, no_adobe, no_names):
        prepared = prepare(coded, ImageOptions(max_size=100))
        assert_near(pixel(prepared, 0.25, 0.25), RED)
        assert_near(pixel(prepared, 0.25, 0.75), BLUE)


@pytest.mark.usefixtures("has_simd")
def test_a_thin_shrunk_jpeg_is_padded() -> None:
    """A thin JPEG is padded with white, in whichever mode it was resized."""
    prepared = prepare(encoded(Image.new("RGB", (2000, 40), RED), "JPEG"), ImageOptions(max_size=500))
    assert (prepared.width, prepared.height) == (500, 32)
    assert_near(pixel(prepared), RED)
    assert_near(pixel(prepared, 0.5, 0.1), (255, 255, 255))


@needs_simd
def test_an_unknown_pillow_does_not_use_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an unknown version of Pillow, whose memory layout may differ, the package is not used."""
    monkeypatch.setattr(PIL, "__version__", "14.0.0")
    resize._simd_resize.cache_clear()
    assert not resize.has_simd()
    assert prepare(PHOTO_JPEG, ImageOptions(max_size=100)).width == 100
    resize._simd_resize.cache_clear()


@needs_simd
def test_threads_share_the_package() -> None:
    """Each of eight threads that resize different pictures at once gets its own picture."""
    colours = [(number * 31 % 256, 255 - number * 31 % 256, number * 70 % 256) for number in range(24)]

    def one(colour: tuple[int, int, int]) -> None:
        prepared = prepare(encoded(Image.new("RGB", (500, 400), colour)), ImageOptions(max_size=90))
        assert_near(pixel(prepared), colour, 4)

    with package(there=True), ThreadPoolExecutor(8) as pool:
        list(pool.map(one, colours * 4))
