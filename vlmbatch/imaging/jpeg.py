"""Writes the JPEG that is sent, and finds the originals that can be sent as they are."""

import re
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageFile

from vlmbatch.errors import ImageError
from vlmbatch.imaging.opening import OutOfMemory
from vlmbatch.imaging.shape import is_thin
from vlmbatch.imaging.weight import decode_bytes
from vlmbatch.protocols import Room

MEDIA_TYPE = "image/jpeg"

# markers of ITU-T T.81 table B.1
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
_APP0, _APP14 = 0xE0, 0xEE
_PICTURE_MARKERS = frozenset(
    (0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, _START_OF_SCAN)
)  # SOF0-2, DHT, DQT, DRI, SOS
_NO_SEGMENT = 0

# FF is followed by 00 or a restart marker in the data of a scan, and by FF where it pads
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_MOST_BYTES_A_PIXEL = 1  # quality 95 without subsampling stays under it for all but noise
_HEADER_ALLOWANCE = 65_536  # bytes


def encode(image: Image.Image, quality: int) -> bytes:
    """The RGB picture as JPEG, without metadata; the same picture always gives the same bytes.

    4:2:0 and no `optimize`, which takes 2.5 times as long for 1 % of the size.

    Raises:
        ImageError: too_large, when memory does not suffice.
    """
    image.info = {}  # save() would write a comment that it finds here
    out = BytesIO()
    try:
        image.save(out, "JPEG", quality=quality)
    # only memory can fail between two places in memory, and the codec says so as OSError
    except (MemoryError, OSError) as error:
        raise OutOfMemory from error
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


def decode_smallest(image: ImageFile.ImageFile, room: Room) -> None:
    """Decode a JPEG at 1/8, the cheapest way that meets its every byte, so that a cut one raises."""
    full = image.size
    image.draft(None, (1, 1))
    with room(decode_bytes(image, full, image.size)):
        image.load()


def check_end(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse a JPEG without its end mark, which Pillow takes when no more than that was cut off."""
    if image.format in ("JPEG", "MPO") and not any(marker == _END_OF_IMAGE for marker, _ in _segments(data)):
        raise ImageError("the JPEG is truncated: its end mark is missing")


def holds_only_a_picture(data: bytes) -> bool:
    """Whether a whole JPEG has no EXIF, XMP, ICC, IPTC, comment or thumbnail, and nothing behind its end."""
    marker = _NO_SEGMENT
    for marker, payload in _segments(data):
        if not _is_bare(marker, payload):
            return False
    return marker == _END_OF_IMAGE


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and payload of each segment up to the end mark, whose payload is all that follows it.

    Bytes between segments, over which decoders skip, count as _NO_SEGMENT.
    """
    at, in_scan = 2, False
    while found := _MARKER.search(data, at):
        if found.start() > at and not in_scan:
            yield _NO_SEGMENT, b""
        marker, at = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            yield marker, data[at:]
            return
        if marker in (_START_OF_IMAGE, _TEMPORARY):  # these have no payload
            yield _NO_SEGMENT, b""
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        yield marker, data[at + 2 : at + length]
        at += max(length, 2)
        in_scan = marker == _START_OF_SCAN


def _is_bare(marker: int, payload: bytes) -> bool:
    if marker == _APP0:
        return payload.startswith(b"JFIF\x00") and len(payload) == 14 and payload[12:] == b"\x00\x00"
    if marker == _APP14:
        return payload.startswith(b"Adobe") and len(payload) == 12
    return marker in _PICTURE_MARKERS or (marker == _END_OF_IMAGE and not payload)
