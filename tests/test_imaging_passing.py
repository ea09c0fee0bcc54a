"""Passing on: what is sent byte for byte, and that nothing but the picture is ever sent."""

import random
from base64 import b64decode
from io import BytesIO
from typing import Any

import pytest
from pictures import (
    EVERY_FORMAT,
    OPTIONS,
    PLAIN,
    SMALL,
    animation,
    encoded,
    exif,
    jpeg_with,
    sent,
    swapped_profile,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vlmbatch.imaging import prepare
from vlmbatch.imaging.jpeg_structure import survey
from vlmbatch.option_groups import ImageOptions


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
    "bytes between segments": (PLAIN[:20] + b"SECRET" + PLAIN[20:], 1024),
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
    assert survey(b64decode(prepared.data)).bare
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
