"""Makes the broken files of this folder again: ``python tests/images/make_images.py``."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(format_name: str, **options: object) -> bytes:
    """A whole file of a small picture, 160 by 120 pixels."""
    image = Image.radial_gradient("L").resize((160, 120))
    image = Image.merge("RGB", (image, image.rotate(90), image.rotate(180)))
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file that declares these sides, 8 bits of gray a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def half(data: bytes) -> bytes:
    """The first half of a file."""
    return data[: len(data) // 2]


def broken() -> dict[str, bytes]:
    """The content of each file."""
    jpeg = picture("JPEG", quality=80)
    comment = b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9)
    return {
        "truncated.jpg": half(jpeg),
        "truncated-by-2-bytes.jpg": jpeg[:-2],
        "truncated.png": half(picture("PNG")),
        "truncated.webp": half(picture("WEBP", quality=80)),
        "truncated.gif": half(picture("GIF")),
        "empty.jpg": b"",
        "zeros.jpg": bytes(512),
        "not-an-image.jpg": b"The camera was asleep, so here is a note instead.\n",
        "html.jpg": b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n",
        "bomb.png": png(20_000, 20_000, chunk(b"IDAT", zlib.compress(b""))),
        "bomb-ztxt.png": png(1, 1, chunk(b"zTXt", comment), chunk(b"IDAT", zlib.compress(b"\0\0"))),
        "bomb-ppm.jpg": b"P6\n9000 9000\n255\n" + bytes(48),
        "garbage.heic": struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + b"\xa5" * 400,
        "garbage.jpg": jpeg[:300] + b"\xa5" * 600 + jpeg[-2:],
    }


if __name__ == "__main__":
    for name, content in broken().items():
        (HERE / name).write_bytes(content)
