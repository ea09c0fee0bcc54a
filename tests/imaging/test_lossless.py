"""PIL images of callers: each mode looks right, is sent as from a file, and is never changed."""

import io
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from pictures import (
    EVERY_FORMAT,
    OPTIONS,
    animation,
    deep,
    encoded,
    exif,
    outcome,
    photo,
    pixel,
    png_chunk,
    sent,
    swapped_profile,
)
from PIL import Image, ImageCms

from vlmbatch.errors import ImageError
from vlmbatch.imaging.lossless import lossless
from vlmbatch.imaging.prepare import prepare

MOST = 200_000_000
PICTURE = photo(200, 150)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV")
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def opened(data: bytes) -> Image.Image:
    """A PIL image whose file has not been decoded yet."""
    return Image.open(io.BytesIO(data))


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    data = encoded(PICTURE, "PNG")
    return data[:33] + png_chunk(kind, body) + data[33:]


def adobe_rgb() -> bytes:
    """EXIF data that say Adobe RGB, as cameras write it."""
    data = Image.Exif()
    data.get_ifd(0x8769)[0xA001] = 2
    return data.tobytes()


FILES: dict[str, Callable[[], bytes]] = {
    **{name: make for name, make in EVERY_FORMAT.items() if name not in ("JPEG", "progressive JPEG")},
    **{f"PNG of {mode}": lambda mode=mode: encoded(PICTURE.convert(mode), "PNG") for mode in ("1", "L", "P")},
    **{f"TIFF of {mode}": lambda mode=mode: encoded(PICTURE.convert(mode), "TIFF") for mode in ("1", "CMYK")},
    **{
        f"{name} turned by {way}": lambda name=name, way=way: encoded(PICTURE, name, exif=exif(way))
        for name in ("PNG", "JPEG", "TIFF")
        for way in (2, 5, 6, 8)
    },
    "half-transparent PNG": lambda: encoded(Image.merge("LA", [PICTURE.getchannel(0)] * 2), "PNG"),
    "PNG with a transparent colour": lambda: encoded(PICTURE, "PNG", transparency=PICTURE.getpixel((9, 9))),
    "PNG with a transparent grey": lambda: encoded(PICTURE.convert("L"), "PNG", transparency=100),
    "16-bit PNG with a transparent grey": lambda: encoded(
        deep(PICTURE), "PNG", transparency=deep(PICTURE).getpixel((9, 9))
    ),
    "palette PNG with alphas": lambda: encoded(PICTURE.convert("P"), "PNG", transparency=bytes(range(256))),
    "PNG with a profile": lambda: encoded(PICTURE, "PNG", icc_profile=swapped_profile()),
    "linear PNG": lambda: with_chunk(b"gAMA", struct.pack(">I", 100_000)),
    "JPEG of Adobe RGB": lambda: encoded(PICTURE, "JPEG", exif=adobe_rgb()),
    "32-bit TIFF": lambda: encoded(PICTURE.convert("L").convert("I"), "TIFF"),
    "TIFF of JPEG": lambda: encoded(PICTURE, "TIFF", compression="jpeg"),
}
AS_IT_IS = "JPEG with a comment"  # a file that is sent as it is, and so not encoded again


@pytest.mark.parametrize("name", [name for name in FILES if name != AS_IT_IS])
def test_a_pil_image_is_sent_like_its_file(name: str) -> None:
    """The bytes that are sent are those that the file itself would give, and its sides are the same."""
    data = FILES[name]()
    by_file, by_image = outcome(data), prepare(lossless(opened(data), MOST), OPTIONS)
    assert not isinstance(by_file, ImageError)
    assert by_image.data == by_file.data
    assert (by_image.original_width, by_image.original_height) == (
        by_file.original_width,
        by_file.original_height,
    )


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_is_sent_as_it_looks(mode: str) -> None:
    """A red image is red in every mode of colours, and grey in a mode of greys."""
    red = Image.new("RGB", (64, 48), (255, 0, 0))
    source = {"LA": "L", "PA": "P", "RGBa": "RGBA", "La": "LA"}.get(mode)
    if mode == "LAB":
        profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(red, *profiles, outputMode="LAB")  # type: ignore[assignment]
    else:
        image = (red.convert("L").convert("LA") if mode == "La" else red.convert(source or mode)).convert(
            mode
        )
    found = pixel(prepare(lossless(image, MOST), OPTIONS))
    wanted = {"1": 0, "L": 76, "LA": 76, "La": 76}.get(mode)
    for value, expected in zip(found, (255, 0, 0) if wanted is None else (wanted,) * 3, strict=True):
        assert abs(value - expected) < 14, found


@pytest.mark.parametrize("mode", DEEP_MODES)
def test_deep_modes_keep_their_tones(mode: str) -> None:
    """A ramp of 16 bits, or of numbers with a fraction, begins black and ends white."""
    values = [step * 257 for step in range(256)] * 64
    image = Image.new("I", (256, 64))
    image.putdata(values)
    if mode == "F":
        image = image.convert("F").point(lambda value: value * (1 / 65535) + 0)
    elif mode == "I;16B":
        image = Image.frombytes("I;16B", (256, 64), struct.pack(f">{len(values)}H", *values))
    elif mode != "I":
        image = image.convert("I;16")
        image = image if mode == "I;16" else Image.frombytes(mode, image.size, image.tobytes())
    shown = sent(prepare(lossless(image, MOST), OPTIONS)).convert("L")
    assert shown.getpixel((2, 30)) < 12
    assert abs(shown.getpixel((128, 30)) - 128) < 12
    assert shown.getpixel((253, 30)) > 243


@pytest.mark.parametrize(
    ("mode", "options"), [("P", {"transparency": 3, "exif": exif(6)}), ("RGB", {}), ("L", {"exif": exif(1)})]
)
def test_the_image_of_the_caller_stays_as_it_is(mode: str, options: dict[str, Any]) -> None:
    """Pixels, mode, size, info and EXIF data of the image are the same afterwards, and it can be used."""
    image = opened(encoded(PICTURE.convert(mode), "PNG", **options))
    image.load()
    image.info["comment"] = "mine"
    before = (image.mode, image.size, image.tobytes(), dict(image.info), dict(image.getexif()))
    lossless(image, MOST)
    assert (image.mode, image.size, image.tobytes(), dict(image.info), dict(image.getexif())) == before
    image.putpixel((0, 0), image.getpixel((9, 9)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF"])
def test_many_threads_may_pass_one_image(name: str) -> None:
    """The file behind an image is read once, although eight threads need it at the same time."""
    image = opened(encoded(photo(900, 700), name))
    begin = threading.Barrier(8)

    def read(_: int) -> bytes:
        begin.wait()
        return lossless(image, MOST)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(read, range(8)))) == 1


@pytest.mark.parametrize(("name", "frame"), [("GIF", 2), ("PNG", 2), ("TIFF", 2), ("WEBP", 2)])
def test_an_animation_gives_its_current_frame(name: str, frame: int) -> None:
    """The frame that the caller has chosen is sent, here the blue one, and stays chosen."""
    image = opened(animation(name))
    image.seek(frame)
    red, _, blue = pixel(prepare(lossless(image, MOST), OPTIONS))
    assert blue > 200 > 50 > red
    assert image.tell() == frame


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_an_image_with_a_cut_file_fails_each_time(name: str) -> None:
    """Half a file is a bad image at the first use and at later uses; a half grey picture is never sent."""
    data = encoded(PICTURE, name)
    image = opened(data[: len(data) // 2])
    for _ in range(2):
        with pytest.raises(ImageError, match=r"the file of this PIL image cannot be decoded: .*truncated"):
            lossless(image, MOST)


@pytest.mark.parametrize("loads", [True, False])
def test_a_closed_image_is_told(loads: bool) -> None:
    """An image that was closed, before or after its pixels were read, is a failure that says so."""
    image = opened(encoded(PICTURE, "PNG"))
    if loads:
        image.load()
    image.close()
    with pytest.raises(ImageError, match="this PIL image is closed; keep it open"):
        lossless(image, MOST)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (7, 0)])
def test_an_image_without_pixels_is_told(size: tuple[int, int]) -> None:
    """An empty image is a failure with its size."""
    with pytest.raises(ImageError, match=f"no pixels: its size is {size[0]}x{size[1]}"):
        lossless(Image.new("RGB", size), MOST)


def test_an_image_with_too_many_pixels_is_not_decoded() -> None:
    """A file that unpacks to more than --max-pixels-in is refused before its pixels are read."""
    image = opened(encoded(PICTURE, "PNG"))
    with pytest.raises(ImageError, match="more than --max-pixels-in") as refused:
        lossless(image, 200 * 150 - 1)
    assert refused.value.kind == "too_large"
    assert image.fp is not None, "a file that Pillow has read is closed"


@pytest.mark.parametrize(
    "info",
    [{"transparency": "x"}, {"gamma": "x"}, {"chromaticity": 3}, {"exif": "x"}, {"icc_profile": "x"}],
)
def test_nonsense_in_info_costs_one_image(info: dict[str, object]) -> None:
    """Values of a wrong type in `info` give a picture or a failure, and no other exception."""
    image = PICTURE.copy()
    image.info.update(info)
    with suppress(ImageError):
        assert lossless(image, MOST)


def test_a_compression_in_info_is_not_used() -> None:
    """A compression in `info`, as a TIFF of JPEG leaves it there, does not change the caller's pixels."""
    image = Image.new("CMYK", (64, 48), (1, 2, 3, 4))
    image.putpixel((5, 5), (200, 100, 50, 25))
    image.info["compression"] = "jpeg"
    with opened(lossless(image, MOST)) as found:
        assert found.tobytes() == image.tobytes()
