"""Imaging: every kind of picture becomes a small, upright, plain JPEG, or an ImageError that says why not."""

import contextlib
import errno
import hashlib
import math
import random
import struct
import subprocess
import sys
import zlib
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw, ImageOps, ImageStat
from PIL.PngImagePlugin import PngInfo

from vlmbatch.config import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging import inspect, prepare
from vlmbatch.imaging.jpeg import holds_only_a_picture
from vlmbatch.imaging.shape import draft, fitted
from vlmbatch.records import PreparedImage

try:
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

# What imaging tells Python once for the process, pytest takes back after each test.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::UserWarning:PIL.{module}ImagePlugin")
    for module in ("Jpeg", "Png", "Tiff")
]

OPTIONS = ImageOptions()
WHITE, RED, GREEN, BLUE, BLACK = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
Colour = tuple[int, int, int]


def encoded(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def sent(prepared: PreparedImage) -> Image.Image:
    image = Image.open(BytesIO(b64decode(prepared.data, validate=True)))
    image.load()
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert image.size == (prepared.width, prepared.height)
    return image


def pixel(prepared: PreparedImage, x: float = 0.5, y: float = 0.5) -> Colour:
    image = sent(prepared)
    value = image.getpixel((int(image.width * x), int(image.height * y)))
    assert isinstance(value, tuple)
    return (int(value[0]), int(value[1]), int(value[2]))


def assert_near(found: Colour, wanted: Colour, tolerance: int = 12) -> None:
    assert all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True)), f"{found}, not {wanted}"


def quarters(width: int, height: int) -> Image.Image:
    """Four corners of four colours, so that each of the eight orientations looks different."""
    image = Image.new("RGB", (width, height), RED)
    pen = ImageDraw.Draw(image)
    pen.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    pen.rectangle((0, height // 2, width // 2 - 1, height), fill=BLUE)
    pen.rectangle((width // 2, height // 2, width, height), fill=(255, 255, 0))
    return image


def photo(width: int, height: int) -> Image.Image:
    """Slow gradients, hard edges, fine lines and a little grain, the same each time."""
    image = Image.merge("RGB", [Image.radial_gradient("L").rotate(turn) for turn in (0, 45, 90)])
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    pen, chance = ImageDraw.Draw(image), random.Random(7)
    for _ in range(60):
        x, y = chance.randrange(width), chance.randrange(height)
        pen.ellipse((x, y, x + width // 9, y + height // 9), fill=chance.choice((RED, GREEN, BLUE)))
        # gray, since 4:2:0 takes the colour out of thin lines
        pen.line((x, 0, y, height), fill=chance.choice((BLACK, WHITE)), width=2)
    grain = Image.frombytes("L", (width, height), chance.randbytes(width * height)).convert("RGB")
    return Image.blend(image, grain, 0.04)


def psnr(one: Image.Image, other: Image.Image) -> float:
    squares = ImageStat.Stat(ImageChops.difference(one, other)).rms
    mean = sum(value * value for value in squares) / len(squares)
    return 10 * math.log10(255 * 255 / mean) if mean else math.inf


def outcome(data: bytes, options: ImageOptions = OPTIONS) -> PreparedImage | ImageError:
    """What prepare() makes of the bytes; any other exception fails the test."""
    try:
        return prepare(data, options)
    except ImageError as error:
        return error


def exif(orientation: int | None = None) -> bytes:
    tags = Image.Exif()
    if orientation is not None:
        tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Make] = "SecretCamera"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSMapDatum] = "SECRET-GPS"
    return tags.tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, bits: int = 1, colour: int = 0) -> bytes:
    """A PNG that declares its size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body


def jpeg_with(data: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with one more segment behind its first two bytes."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def swapped_profile() -> bytes:
    """An ICC profile like sRGB, but with red and green swapped, so that a wrong path shows."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return profile.replace("sRGB".encode("utf-16-be"), "Test".encode("utf-16-be"))


def deep(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")


def animation(name: str) -> bytes:
    """Three frames, the first one red."""
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, GREEN, BLUE)]
    return encoded(frames[0], name, save_all=True, append_images=frames[1:])


SMALL = photo(120, 90)
"""Enough detail that no encoder makes it trivial."""

EVERY_FORMAT: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(SMALL, "JPEG"),
    "progressive JPEG": lambda: encoded(SMALL, "JPEG", progressive=True),
    "JPEG with a comment": lambda: encoded(SMALL, "JPEG", comment=b"hello"),
    "JPEG with EXIF": lambda: encoded(SMALL, "JPEG", exif=exif(6)),
    "CMYK JPEG": lambda: encoded(SMALL.convert("CMYK"), "JPEG"),
    "MPO": lambda: animation("MPO"),
    "PNG": lambda: encoded(SMALL, "PNG"),
    "16-bit PNG": lambda: encoded(deep(SMALL), "PNG"),
    "palette PNG": lambda: encoded(SMALL.convert("P"), "PNG", transparency=3),
    "APNG": lambda: animation("PNG"),
    "WEBP": lambda: encoded(SMALL, "WEBP"),
    "lossless WEBP": lambda: encoded(SMALL.convert("RGBA"), "WEBP", lossless=True, exif=exif(3)),
    "GIF": lambda: encoded(SMALL.convert("P"), "GIF"),
    "animated GIF": lambda: animation("GIF"),
    "BMP": lambda: encoded(SMALL, "BMP"),
    "TIFF": lambda: encoded(SMALL, "TIFF"),
    "LZW TIFF": lambda: encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "pages of TIFF": lambda: animation("TIFF"),
    "AVIF": lambda: encoded(SMALL, "AVIF"),
}
if pillow_heif is not None:
    EVERY_FORMAT["HEIC"] = lambda: encoded(SMALL, "HEIF")


# what a good picture becomes


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_every_format_decodes(name: str) -> None:
    """Each format gives a JPEG of its size, with the facts of the source beside it."""
    data = EVERY_FORMAT[name]()
    prepared = prepare(data, OPTIONS)
    assert sorted(sent(prepared).size) in ([90, 120], [48, 64])
    assert prepared.sha256 == hashlib.sha256(data).hexdigest()
    assert prepared.sent_bytes == len(b64decode(prepared.data))
    assert prepared.media_type == "image/jpeg"
    assert (prepared.original_width, prepared.original_height) == (prepared.width, prepared.height)
    assert prepared.warnings == ()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_colours_survive(name: str) -> None:
    """What is sent looks like the source, whatever the format."""
    assert psnr(sent(prepare(encoded(SMALL, name), OPTIONS)), SMALL) > 25


@pytest.mark.parametrize("size", [(1600, 1200), (96, 64)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_carried_out(orientation: int, size: tuple[int, int]) -> None:
    """All eight orientations come out upright, also when the decoder shrinks on load."""
    data = encoded(quarters(*size), "JPEG", exif=exif(orientation))
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    prepared = prepare(data, ImageOptions(max_size=256))
    assert (prepared.original_width, prepared.original_height) == wanted.size
    assert fitted(wanted.size, 256) == (prepared.width, prepared.height)
    for x, y in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        value = wanted.getpixel((int(wanted.width * x), int(wanted.height * y)))
        assert isinstance(value, tuple)
        assert_near(pixel(prepared, x, y), (int(value[0]), int(value[1]), int(value[2])))


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_orientation_counts_in_every_format(name: str) -> None:
    """Orientation 6 turns a wide picture tall once, also where Pillow or the format does the turning."""
    data = encoded(quarters(96, 64), name, exif=exif(6))
    prepared = prepare(data, OPTIONS)
    assert (prepared.width, prepared.height) == (64, 96)
    assert_near(pixel(prepared, 0.75, 0.25), RED)
    header = inspect(data)
    assert (header.width, header.height) == (64, 96)


@pytest.mark.parametrize("broken", [b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00", exif(99)])
def test_broken_exif_leaves_the_picture_as_it_lies(broken: bytes) -> None:
    """EXIF data that makes no sense costs no picture."""
    data = jpeg_with(encoded(quarters(96, 64), "JPEG"), 0xE1, broken)
    prepared = prepare(data, OPTIONS)
    assert (prepared.width, prepared.height) == (96, 64)
    assert_near(pixel(prepared, 0.25, 0.25), RED)


def see_through(mode: str) -> bytes:
    """The left half is opaque blue or gray, the right half transparent over a hidden colour."""
    image = Image.new("RGBA", (200, 100), (*RED, 0))
    image.paste((0, 0, 255, 255), (0, 0, 100, 100))
    if mode == "P":
        palette = Image.new("P", (200, 100), 1)
        palette.putpalette([0, 0, 255, 0, 0, 0])
        palette.paste(0, (0, 0, 100, 100))
        return encoded(palette, "PNG", transparency=1)
    if mode in ("L", "RGB"):
        opaque = Image.new("RGB", (200, 100), BLACK)
        opaque.paste(BLUE, (0, 0, 100, 100))
        return encoded(opaque.convert(mode), "PNG", transparency=0 if mode == "L" else BLACK)
    if mode == "PA":  # a palette of colours with alpha, as PNG's tRNS with many entries gives
        return encoded(image.quantize(4, Image.Quantize.FASTOCTREE), "PNG")
    return encoded(image.convert(mode), "PNG")


@pytest.mark.parametrize("max_size", [1024, 50])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "L", "RGB"])
def test_transparency_becomes_white(mode: str, max_size: int) -> None:
    """No colour that transparent pixels hide shows through, resized or not."""
    prepared = prepare(see_through(mode), ImageOptions(max_size=max_size))
    assert_near(pixel(prepared, 0.75), WHITE, 3)
    assert_near(pixel(prepared, 0.9), WHITE, 3)
    left = pixel(prepared, 0.25)
    assert_near(left, (left[0], left[0], left[0]) if mode in ("LA", "L") else BLUE)
    assert max(left[:2]) < 60


def test_half_transparent_edges_do_not_take_on_the_hidden_colour() -> None:
    """Shrinking black on transparent red gives gray edges, not red ones."""
    image = Image.new("RGBA", (400, 400), (*RED, 0))
    ImageDraw.Draw(image).ellipse((50, 50, 350, 350), fill=(*BLACK, 255))
    red, green, _ = sent(prepare(encoded(image), ImageOptions(max_size=64, quality=100))).split()
    assert ImageChops.difference(red, green).getextrema()[1] < 12  # type: ignore[operator]  # one band


def ramp(mode: str, values: list[float]) -> Image.Image:
    image = Image.new("I" if mode.startswith("I;16") else mode, (256, 64))
    image.putdata(values * 64)
    return image.convert(mode) if image.mode != mode else image


@pytest.mark.parametrize(
    ("mode", "name", "values", "warned"),
    [
        ("I;16", "PNG", [x * 257 for x in range(256)], False),
        ("I;16", "TIFF", [x * 257 for x in range(256)], False),
        ("I;16B", "TIFF", [x * 257 for x in range(256)], False),
        ("I;16", "TIFF", [x * 16 for x in range(256)], True),  # a 12-bit sensor
        ("I", "TIFF", [x * 257 for x in range(256)], False),
        ("I", "TIFF", list(range(256)), False),
        ("I", "TIFF", [(x - 100) * 1_000_000 for x in range(256)], True),
        ("F", "TIFF", [x / 255 for x in range(256)], False),
        ("F", "TIFF", list(range(256)), False),
        ("F", "TIFF", [x / 255 - 0.5 for x in range(256)], True),
        ("F", "TIFF", [x * 1e6 for x in range(256)], True),
    ],
)
def test_deep_samples_are_scaled_and_not_clipped(
    mode: str, name: str, values: list[float], warned: bool
) -> None:
    """A ramp of 16 or 32 bits stays a ramp from black to white, and unusual ranges are told."""
    prepared = prepare(encoded(ramp(mode, values), name), ImageOptions(quality=100))
    row = [pixel(prepared, (x + 0.5) / 256)[0] for x in range(0, 256, 15)]
    assert row == pytest.approx(list(range(0, 256, 15)), abs=2)
    assert bool(prepared.warnings) == warned


@pytest.mark.parametrize(("mode", "name"), [("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF")])
@pytest.mark.parametrize("value", [0, 1])
def test_a_flat_deep_picture_is_fine(mode: str, name: str, value: int) -> None:
    """One value everywhere gives no division by zero."""
    sent(prepare(encoded(ramp(mode, [value] * 256), name), OPTIONS))


def test_floats_that_are_no_numbers_are_refused() -> None:
    """A float picture with infinite values has no white to measure by."""
    with pytest.raises(ImageError, match="not all finite numbers"):
        prepare(encoded(ramp("F", [math.inf] * 256), "TIFF"), OPTIONS)


@pytest.mark.parametrize(
    ("name", "mode"), [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("PNG", "P"), ("TIFF", "LAB"), ("TIFF", "YCbCr")]
)
@pytest.mark.parametrize("colour", [RED, (0, 128, 0), WHITE, BLACK])
def test_other_colour_models_become_rgb(name: str, mode: str, colour: Colour) -> None:
    """CMYK (inverted as Adobe writes it), palettes, LAB and YCbCr show the colours that they mean."""
    image = Image.new("RGB", (300, 200), colour)
    assert_near(pixel(prepare(encoded(image.convert(mode), name), ImageOptions(max_size=64))), colour)


def test_one_bit_pictures_are_resized_to_gray() -> None:
    """A fine black and white pattern becomes gray when it shrinks, not a lottery of dots."""
    image = Image.new("1", (800, 800))
    image.putdata([255 * ((x + y) % 2) for y in range(800) for x in range(800)])
    assert_near(pixel(prepare(encoded(image), ImageOptions(max_size=100))), (128, 128, 128))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_colour_profile_is_carried_over_to_srgb(name: str) -> None:
    """Pixels of another colour space are sent as what they look like, and the profile stays behind."""
    data = encoded(Image.new("RGB", (300, 200), (220, 30, 30)), name, icc_profile=swapped_profile())
    prepared = prepare(data, ImageOptions(max_size=64))
    red, green, blue = pixel(prepared)
    assert green > 180
    assert max(red, blue) < 80
    assert prepared.warnings == ()


def test_a_gray_picture_with_a_profile_of_colours_stays_gray() -> None:
    """Cameras put an RGB profile into black and white pictures."""
    data = encoded(Image.new("L", (64, 64), 90), "JPEG", icc_profile=swapped_profile())
    prepared = prepare(data, OPTIONS)
    assert max(pixel(prepared)) - min(pixel(prepared)) <= 6
    assert prepared.warnings == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", ["noise", "of another space"])
def test_a_bad_profile_is_only_a_warning(mode: str, profile: str) -> None:
    """An unreadable or unfit profile leaves the picture as if it had none."""
    icc = random.Random(1).randbytes(500)
    if profile == "of another space":
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.new("RGB", (64, 64), (90, 90, 90)).convert(mode)
    prepared = prepare(encoded(image, "JPEG", icc_profile=icc), OPTIONS)
    assert_near(pixel(prepared), (90, 90, 90))
    assert prepared.warnings[0].startswith("its colour profile cannot be used")


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "MPO", "TIFF", "AVIF"])
def test_the_first_frame_is_sent_and_the_frames_are_counted(name: str) -> None:
    """Animations and pages give their first picture and say how many there are."""
    prepared = prepare(animation(name), OPTIONS)
    assert_near(pixel(prepared), RED)
    assert prepared.frames == 3
    assert prepare(encoded(SMALL), OPTIONS).frames == 1


# shape


@pytest.mark.parametrize(
    ("size", "max_size", "wanted"),
    [
        ((10000, 3), 1024, (1024, 32)),
        ((3, 10000), 1024, (32, 1024)),
        ((10000, 3), 0, (10000, 100)),
        ((1, 1), 1024, (32, 32)),
        ((31, 500), 1024, (32, 500)),
        ((70000, 10), 1024, (1024, 32)),
    ],
)
def test_thin_pictures_are_padded_with_white(
    size: tuple[int, int], max_size: int, wanted: tuple[int, int]
) -> None:
    """A side under 32 pixels or a ratio over 100:1 is filled up evenly, and the record tells."""
    prepared = prepare(encoded(Image.new("RGB", size, BLUE)), ImageOptions(max_size=max_size, quality=100))
    assert (prepared.width, prepared.height) == wanted
    assert prepared.warnings[0].startswith("padded from ")
    assert prepared.warnings[0].endswith(f" to {wanted[0]}x{wanted[1]}")
    assert pixel(prepared)[2] > 150
    assert (prepared.original_width, prepared.original_height) == size
    if min(size) < min(wanted) // 2:
        assert_near(pixel(prepared, 0, 0), WHITE)
        assert_near(pixel(prepared, 0.999, 0.999), WHITE)


def test_a_side_that_no_jpeg_has_is_refused() -> None:
    """70000 pixels cannot be sent unshrunk; the message names the flag that helps."""
    with pytest.raises(ImageError, match="--max-size") as raised:
        prepare(encoded(Image.new("L", (70000, 10))), ImageOptions(max_size=0))
    assert raised.value.kind == "bad_shape"


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    max_size=st.sampled_from((0, 32, 33, 64, 100, 255)),
    name=st.sampled_from(("JPEG", "PNG")),
    mode=st.sampled_from(("RGB", "L", "1")),
    orientation=st.integers(1, 8),
)
def test_laws_of_size(width: int, height: int, max_size: int, name: str, mode: str, orientation: int) -> None:
    """The longest side keeps its limit, nothing grows but by padding, the aspect holds within a pixel."""
    prepared = prepare(
        encoded(Image.new(mode, (width, height)), name, exif=exif(orientation)),
        ImageOptions(max_size=max_size),
    )
    sides = sent(prepared).size
    limit = max_size or max(width, height)
    assert max(sides) <= max(limit, 32)
    assert min(sides) >= 32
    if not prepared.warnings:
        original = (prepared.original_width, prepared.original_height)
        assert original == ((height, width) if orientation >= 5 else (width, height))
        scale = min(1, limit / max(original))
        for side, before in zip(sides, original, strict=True):
            assert side <= before
            assert abs(side - before * scale) <= 1


def test_a_photo_of_4_to_3_is_decoded_at_half_size() -> None:
    """12 megapixels to 1024 pixels use the decoder's 1/2, which a square box would not get."""
    with Image.open(BytesIO(encoded(Image.new("RGB", (4000, 3000)), "JPEG"))) as image:
        draft(image, fitted(image.size, 1024))
        assert image.size == (2000, 1500)


def test_shrinking_on_load_keeps_the_quality() -> None:
    """The quick path stays within 33 dB of a full decode and a Lanczos resize."""
    data = encoded(photo(2400, 1800), "JPEG", quality=92)
    exact = Image.open(BytesIO(data)).resize((640, 480), Image.Resampling.LANCZOS)
    assert psnr(sent(prepare(data, ImageOptions(max_size=640, quality=95))), exact) > 33


# passing on


PLAIN = encoded(SMALL, "JPEG")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        encoded(SMALL, "JPEG", progressive=True),
        encoded(SMALL, "JPEG", subsampling=0, quality=95, optimize=True),
        encoded(SMALL, "JPEG", restart_marker_blocks=2),
    ],
    ids=["baseline", "progressive", "4:4:4", "restart markers"],
)
@pytest.mark.parametrize("max_size", [0, 120, 1024])
def test_a_plain_small_jpeg_is_sent_byte_for_byte(data: bytes, max_size: int) -> None:
    """What needs nothing is not encoded again."""
    prepared = prepare(data, ImageOptions(max_size=max_size))
    assert b64decode(prepared.data) == data
    assert (prepared.width, prepared.height, prepared.sent_bytes) == (120, 90, len(data))


JFIF_WITH_THUMBNAIL = b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x01\x01\xff\x00\x00"

REASONS: dict[str, tuple[bytes, int]] = {
    "too large": (PLAIN, 119),
    "EXIF": (encoded(SMALL, "JPEG", exif=exif()), 1024),
    "EXIF orientation": (encoded(SMALL, "JPEG", exif=exif(6)), 1024),
    "ICC": (encoded(SMALL, "JPEG", icc_profile=swapped_profile()), 1024),
    "comment": (encoded(SMALL, "JPEG", comment=b"SECRET"), 1024),
    "XMP": (jpeg_with(PLAIN, 0xE1, b"http://ns.adobe.com/xap/1.0/\x00<x/>"), 1024),
    "IPTC": (jpeg_with(PLAIN, 0xED, b"Photoshop 3.0\x008BIM"), 1024),
    "JFXX": (jpeg_with(PLAIN, 0xE0, b"JFXX\x00\x10" + PLAIN), 1024),
    "JFIF thumbnail": (jpeg_with(PLAIN, 0xE0, JFIF_WITH_THUMBNAIL), 1024),
    "long APP14": (jpeg_with(PLAIN, 0xEE, b"Adobe\x00d\x00\x00\x00\x00\x01SECRET"), 1024),
    "bytes behind the end": (PLAIN + b"SECRET", 1024),
    "another picture behind the end": (PLAIN + PLAIN, 1024),
    "gray": (encoded(SMALL.convert("L"), "JPEG"), 1024),
    "CMYK": (encoded(SMALL.convert("CMYK"), "JPEG"), 1024),
    "MPO": (animation("MPO"), 1024),
    "PNG": (encoded(SMALL), 1024),
    "thin": (encoded(SMALL.resize((120, 31)), "JPEG"), 1024),
    "long": (encoded(SMALL.resize((4000, 39)), "JPEG"), 0),
    "heavy": (
        encoded(
            Image.frombytes("RGB", (300, 300), random.Random(2).randbytes(270_000)),
            "JPEG",
            quality=100,
            subsampling=0,
        ),
        1024,
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_to_encode_again_is_respected(reason: str) -> None:
    """A JPEG that is large, turned, coloured, thin, heavy or carries anything else is made anew."""
    data, max_size = REASONS[reason]
    prepared = prepare(data, ImageOptions(max_size=max_size))
    sent(prepared)
    assert b64decode(prepared.data) != data
    assert holds_only_a_picture(b64decode(prepared.data))
    assert b"SECRET" not in b64decode(prepared.data)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_does_not_leave(name: str) -> None:
    """Neither camera, place, comment, XMP nor profile of the source is in what is sent."""
    options: dict[str, Any] = {"exif": exif(1), "icc_profile": swapped_profile()}
    if name == "JPEG":
        options |= {"comment": b"SECRET-COMMENT", "xmp": b"<x>SECRET-XMP</x>"}
    if name == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", "SECRET-TEXT")
    data = encoded(SMALL, name, **options)
    assert b"SECRET" in data
    out = b64decode(prepare(data, OPTIONS).data)
    for trace in (b"SECRET", b"Exif", b"SecretCamera", b"ICC_PROFILE", b"http:"):
        assert trace not in out
    assert not Image.open(BytesIO(out)).getexif()


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_the_same_bytes_give_the_same_bytes(name: str) -> None:
    """Endpoints cache pictures by their content."""
    data = EVERY_FORMAT[name]()
    assert prepare(data, ImageOptions(max_size=64)) == prepare(data, ImageOptions(max_size=64))


def test_quality_is_obeyed() -> None:
    """A lower --quality sends fewer bytes."""
    sizes = [prepare(encoded(SMALL), ImageOptions(quality=q)).sent_bytes for q in (30, 85, 100)]
    assert sizes == sorted(set(sizes))


# what is refused


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_no_cut_file_passes_for_another_picture(name: str) -> None:
    """Cut anywhere, a file fails as bad_image, unless all pixels that are sent are still there."""
    data = EVERY_FORMAT[name]()
    whole = prepare(data, OPTIONS).data
    chance = random.Random(3)
    cuts = {0, 1, 2, 3, 10, 60, len(data) // 2, len(data) - 2, len(data) - 1}
    passed = 0
    for cut in sorted(cuts | set(chance.sample(range(len(data)), 30))):
        match outcome(data[:cut]):
            case ImageError() as error:
                assert error.kind == "bad_image"
                assert "0x" not in str(error)
            case prepared:
                assert prepared.data == whole
                passed += 1
    if "JPEG" in name:
        assert not passed
    if name not in ("animated GIF", "pages of TIFF", "APNG", "MPO"):  # which have more behind what is sent
        assert passed <= 3


def test_every_cut_of_a_plain_jpeg_is_found() -> None:
    """The 1/8 decode that lets an original pass finds a cut at any byte, also of the end mark alone."""
    for data in (PLAIN, encoded(SMALL, "JPEG", progressive=True)):
        for cut in [*range(0, len(data), 61), len(data) - 2, len(data) - 1]:
            with pytest.raises(ImageError) as raised:
                prepare(data[:cut], OPTIONS)
            assert raised.value.kind == "bad_image"


def test_a_cut_jpeg_is_called_truncated() -> None:
    """The message says in plain words what is wrong."""
    with pytest.raises(ImageError, match=r"^the JPEG is truncated: "):
        prepare(PLAIN[: len(PLAIN) // 2], OPTIONS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"Dear diary", "not an image: it begins like text"),
        (b"<!DOCTYPE html><title>404</title>", "not an image: it begins like HTML"),
        (b"%PDF-1.7", "not an image: it begins like a PDF"),
        (b"P6 9000 9000 255\n" + bytes(48), "not an image"),
        (b"\x89PNG\r\n\x1a\n", "the PNG cannot be opened"),
        (b"\xff\xd8\xff", "the JPEG cannot be opened"),
        (encoded(SMALL, "JPEG")[:30] + bytes(500), "the JPEG cannot be"),
        (encoded(SMALL, "JPEG2000"), "not an image: it begins like JPEG 2000"),
        (encoded(SMALL, "ICO"), "not an image"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    """Both readings of a file, whole or header only, say what it is instead."""
    for read in (partial(prepare, options=OPTIONS), inspect):
        with pytest.raises(ImageError, match=message.replace("(", r"\(")) as raised:
            read(data)
        assert raised.value.kind == "bad_image"


def test_the_pixel_cap_comes_before_decoding() -> None:
    """74 bytes that declare 400 megapixels are refused by their header."""
    bomb = png_header(20000, 20000, 8, 2)[:74]
    message = "^20000x20000 = 400 megapixels, more than --max-pixels-in 200 MP$"
    for read in (partial(prepare, options=OPTIONS), partial(inspect, max_pixels_in=OPTIONS.max_pixels_in)):
        with pytest.raises(ImageError, match=message) as raised:
            read(bomb)
        assert raised.value.kind == "too_large"


def test_the_pixel_cap_is_exact() -> None:
    """A picture of just as many pixels as allowed is taken, one more row is not."""
    options = ImageOptions(max_pixels_in=120 * 90)
    prepare(encoded(SMALL), options)
    with pytest.raises(ImageError, match="megapixels"):
        prepare(encoded(SMALL.resize((120, 91))), options)


def test_pillows_own_cap_does_not_rule() -> None:
    """Between Pillow's limit and ours there is neither its warning nor its error."""
    header = png_header(13400, 13400)  # over twice Pillow's 89 megapixels
    assert inspect(header, OPTIONS.max_pixels_in).width == 13400
    with pytest.raises(ImageError, match="truncated") as raised:
        prepare(header, OPTIONS)
    assert raised.value.kind == "bad_image"


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_compressed_text_or_profile_cannot_burst(kind: bytes) -> None:
    """What unpacks to megabytes inside a PNG costs at most its own record."""
    bomb = png_chunk(kind, b"x\x00\x00" + zlib.compress(bytes(5_000_000)))
    data = encoded(SMALL)
    match outcome(data[:33] + bomb + data[33:]):
        case ImageError() as error:
            assert error.kind == "bad_image"
        case prepared:
            assert psnr(sent(prepared), SMALL) > 25


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_broken_bytes_give_a_picture_or_an_image_error(name: str) -> None:
    """Whatever hostile bytes make a decoder raise, only an ImageError comes out."""
    data, chance = EVERY_FORMAT[name](), random.Random(name)
    for _ in range(25):
        broken = bytearray(data)
        for _ in range(chance.choice((1, 3, 20))):
            # half of them into the header, where the structures are
            at = chance.randrange(min(200, len(data)) if chance.random() < 0.5 else len(data))
            broken[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        match outcome(bytes(broken), ImageOptions(max_size=64, max_pixels_in=1_000_000)):
            case ImageError() as error:
                assert str(error)
                assert "\n" not in str(error)
            case prepared:
                sent(prepared)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00", b"RIFF1234WEBP"]),
    st.binary(max_size=200),
)
def test_any_bytes_give_an_image_error(head: bytes, tail: bytes) -> None:
    """Random bytes, also behind a true signature, never raise anything else."""
    outcome(head + tail, ImageOptions(max_pixels_in=1_000_000))
    with contextlib.suppress(ImageError):
        inspect(head + tail)


# the machine


class FailingFile(BytesIO):
    """An open file whose second read fails with the given errno."""

    def __init__(self, data: bytes, number: int) -> None:
        super().__init__(data)
        self.number, self.reads = number, 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 1:
            raise OSError(self.number, "no luck")
        return super().read(size)


def test_troubles_of_the_run_are_not_blamed_on_the_image() -> None:
    """Out of descriptors or memory is the machine's trouble; a disk error is this file's."""
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with pytest.raises(OSError, match="no luck"):
            inspect(FailingFile(PLAIN, number))
    with pytest.raises(ImageError, match="no luck"):
        inspect(FailingFile(PLAIN, errno.EIO))


def run_python(code: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "always", "-"]
    return subprocess.run(command, input=code.encode(), capture_output=True, check=False)


def test_too_little_memory_fails_the_image_and_not_the_process() -> None:
    """A picture that the machine cannot hold is too_large, as if it were over the cap."""
    pytest.importorskip("resource")
    done = run_python(
        "import resource; from vlmbatch.imaging import prepare; from vlmbatch.config import ImageOptions\n"
        "from vlmbatch.errors import ImageError\n"
        f"data = {png_header(13400, 13400, 8, 2)!r}\n"
        "resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000))\n"
        "try: prepare(data, ImageOptions())\n"
        "except ImageError as error: print(error.kind, error)\n"
    )
    assert done.stdout.startswith(b"too_large there is not enough memory"), done.stderr


def test_pillow_warns_nobody() -> None:
    """Broken metadata prints no Python warning into the run's output."""
    data = jpeg_with(encoded(SMALL, "JPEG"), 0xE2, b"MPF\x00II*\x00\xff\xff\xff\xff")
    tiff = encoded(SMALL, "TIFF", exif=exif(1))
    at = tiff.index(b"SecretCamera")
    pointer = tiff.index(struct.pack("<I", at))
    broken = tiff[:pointer] + struct.pack("<I", len(tiff) + 99) + tiff[pointer + 4 :]
    done = run_python(
        "from vlmbatch.imaging import prepare; from vlmbatch.config import ImageOptions\n"
        f"for data in ({data!r}, {broken!r}): print(prepare(data, ImageOptions()).width)\n"
    )
    assert (done.stdout, done.stderr) == (b"120\n120\n", b"")


def test_heic_without_its_plug_in_names_the_extra() -> None:
    """The message is the command to type."""
    done = run_python(
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from vlmbatch.imaging import inspect\n"
        "from vlmbatch.errors import ImageError\n"
        "try: inspect(b'\\x00\\x00\\x00\\x18ftypheic\\x00\\x00\\x00\\x00mif1heic')\n"
        "except ImageError as error: print(error.kind, error)\n"
    )
    assert done.stdout == b'bad_image HEIC needs a plug-in; install it with: pip install "vlmbatch[heic]"\n'


@pytest.mark.skipif(pillow_heif is None, reason="pillow-heif is not installed")
def test_heic_is_registered_when_one_arrives() -> None:
    """A fresh process opens HEIC in many threads at once without being told about the plug-in."""
    done = run_python(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from vlmbatch.imaging import prepare; from vlmbatch.config import ImageOptions\n"
        f"data = {encoded(quarters(96, 64), 'HEIF', exif=exif(6))!r}\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    done = list(pool.map(lambda _: prepare(data, ImageOptions()), range(16)))\n"
        "print({(p.width, p.height) for p in done})\n"
    )
    assert done.stdout == b"{(64, 96)}\n", done.stderr


def test_many_threads_do_not_mix_their_pictures() -> None:
    """Sixteen threads that prepare different pictures at once get each its own."""
    names = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")

    def one(number: int) -> None:
        colour = (number * 16 % 256, 255 - number * 16 % 256, number * 40 % 256)
        size = (300 + number, 200 + number)
        data = encoded(Image.new("RGB", size, colour), names[number % len(names)])
        prepared = prepare(data, ImageOptions(max_size=100))
        assert_near(pixel(prepared), colour)
        assert (prepared.original_width, prepared.original_height) == size
        assert prepared.sha256 == hashlib.sha256(data).hexdigest()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(160)))


def test_inspect_reads_an_open_file_by_its_header() -> None:
    """Format, mode and upright size are told without decoding, also of a file that is cut."""
    data = encoded(SMALL, "JPEG", exif=exif(8))
    header = inspect(BytesIO(data[: len(data) // 2]))
    assert (header.format, header.mode, header.width, header.height) == ("JPEG", "RGB", 90, 120)
