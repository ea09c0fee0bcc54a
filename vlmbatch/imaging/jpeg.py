"""Writes the JPEG that is sent, and finds the originals that can be sent as they are."""

import re
from io import BytesIO

from PIL import Image, ImageFile

from vlmbatch.imaging.shape import is_thin

MEDIA_TYPE = "image/jpeg"

# markers of ITU-T T.81 table B.1
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_APP0, _APP14 = 0xE0, 0xEE
_PICTURE_MARKERS = frozenset(
    (0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, _START_OF_SCAN)
)  # SOF0-2, DHT, DQT, DRI, SOS

# in entropy-coded data FF is followed by 00 or a restart marker; anything else ends the scan
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_MOST_BYTES_A_PIXEL = 1  # quality 95 without subsampling stays under it for all but noise
_HEADER_ALLOWANCE = 65_536  # bytes


def encode(image: Image.Image, quality: int) -> bytes:
    """The RGB picture as JPEG, without metadata; the same picture always gives the same bytes.

    4:2:0 and no `optimize`, which takes 2.5 times as long for 1 % of the size.
    """
    image.info = {}  # save() would write a comment that it finds here
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def may_pass(image: ImageFile.ImageFile, data: bytes, max_size: int) -> bool:
    """Whether an original, if it decodes, is already what would be sent: plain, bare, small enough."""
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and (max_size == 0 or max(image.size) <= max_size)
        and not is_thin(image.size)
        and len(data) <= image.width * image.height * _MOST_BYTES_A_PIXEL + _HEADER_ALLOWANCE
        and holds_only_a_picture(data)
    )


def decode_smallest(image: ImageFile.ImageFile) -> None:
    """Decode a JPEG at 1/8, the cheapest way that meets its every byte, so that a cut one raises."""
    image.draft(None, (1, 1))
    image.load()


def holds_only_a_picture(data: bytes) -> bool:
    """Whether a JPEG has no EXIF, XMP, ICC, IPTC, comment or thumbnail, and nothing behind its end."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker == _END_OF_IMAGE:
            return at + 2 == len(data)
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or not _is_bare(marker, data[at + 4 : at + 2 + length]):
            return False
        at += 2 + length
        if marker == _START_OF_SCAN:
            end = _AFTER_SCAN.search(data, at)
            at = end.start() if end else len(data)
    return False


def _is_bare(marker: int, payload: bytes) -> bool:
    if marker == _APP0:
        return payload.startswith(b"JFIF\x00") and len(payload) == 14 and payload[12:] == b"\x00\x00"
    if marker == _APP14:
        return payload.startswith(b"Adobe") and len(payload) == 12
    return marker in _PICTURE_MARKERS
