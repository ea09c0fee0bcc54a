"""Generated pictures for the tests of imaging, and checks of the prepared pictures."""

import importlib.util
import math
import random
import struct
import subprocess
import sys
import zlib
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw, ImageStat

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.prepare import prepare

HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
if HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()  # to write samples

HAS_SIMD = importlib.util.find_spec("cykooz_resizer") is not None

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
    """A picture with four corners of four colours, so that the eight orientations differ."""
    image = Image.new("RGB", (width, height), RED)
    pen = ImageDraw.Draw(image)
    pen.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    pen.rectangle((0, height // 2, width // 2 - 1, height), fill=BLUE)
    pen.rectangle((width // 2, height // 2, width, height), fill=(255, 255, 0))
    return image


def photo(width: int, height: int) -> Image.Image:
    """A reproducible picture with slow gradients, hard edges, fine lines and a little grain."""
    image = Image.merge("RGB", [Image.radial_gradient("L").rotate(turn) for turn in (0, 45, 90)])
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    pen, chance = ImageDraw.Draw(image), random.Random(7)
    for _ in range(60):
        x, y = chance.randrange(width), chance.randrange(height)
        pen.ellipse((x, y, x + width // 9, y + height // 9), fill=chance.choice((RED, GREEN, BLUE)))
        # gray, since 4:2:0 removes the colour of thin lines
        pen.line((x, 0, y, height), fill=chance.choice((BLACK, WHITE)), width=2)
    grain = Image.frombytes("L", (width, height), chance.randbytes(width * height)).convert("RGB")
    return Image.blend(image, grain, 0.04)


def psnr(one: Image.Image, other: Image.Image) -> float:
    squares = ImageStat.Stat(ImageChops.difference(one, other)).rms
    mean = sum(value * value for value in squares) / len(squares)
    return 10 * math.log10(255 * 255 / mean) if mean else math.inf


def outcome(data: bytes, options: ImageOptions = OPTIONS) -> PreparedImage | ImageError:
    """The result of prepare() or its ImageError; any other exception fails the test."""
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
    """A PNG that declares its size and has almost no data."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body


def jpeg_with(data: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with one more segment after its first two bytes."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def multi_scan(image: Image.Image) -> bytes:
    """A baseline JPEG in three scans, one a colour (ITU-T T.81 section A.2), which Pillow cannot write."""
    planes = [encoded(plane, "JPEG") for plane in image.convert("YCbCr").split()]
    scans = []
    for number, plane in enumerate(planes, 1):
        at = plane.index(b"\xff\xda") + 10  # marker, length and the header for one component
        scans.append(b"\xff\xda\x00\x08\x01" + bytes((number, 0, 0, 63, 0)) + plane[at:-2])
    head = planes[0][: planes[0].index(b"\xff\xda")]
    frame = head.index(b"\xff\xc0")
    size = head[frame + 5 : frame + 9]
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    colours = b"\xff\xc0\x00\x11\x08" + size + b"\x03" + components
    return head[:frame] + colours + head[frame + 13 :] + b"".join(scans) + b"\xff\xd9"


def swapped_profile() -> bytes:
    """An ICC profile like sRGB with red and green swapped, so that an ignored profile is visible."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return profile.replace("sRGB".encode("utf-16-be"), "Test".encode("utf-16-be"))


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def deep(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")


def animation(name: str) -> bytes:
    """An animation of three frames, the first one red."""
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, GREEN, BLUE)]
    return encoded(frames[0], name, save_all=True, append_images=frames[1:])


SMALL = photo(120, 90)
"""A picture with so much detail that no encoder makes it trivial."""

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
if HAS_HEIF:
    EVERY_FORMAT["HEIC"] = lambda: encoded(SMALL, "HEIF")


def ramp(mode: str, values: list[float]) -> Image.Image:
    image = Image.new("I" if mode.startswith("I;16") else mode, (256, 64))
    image.putdata(values * 64)
    return image.convert(mode) if image.mode != mode else image


PLAIN = encoded(SMALL, "JPEG")


def run_python(code: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "always", "-"]
    return subprocess.run(command, input=code.encode(), capture_output=True, check=False)
