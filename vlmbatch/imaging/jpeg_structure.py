"""What the segments of a JPEG tell without decoding it: whether it is whole, bare, and not made to stall."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlmbatch.errors import ImageError

# markers of ITU-T T.81 table B.1
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
_APP0, _APP14 = 0xE0, 0xEE
_PICTURE_MARKERS = frozenset(
    (0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, _START_OF_SCAN)
)  # SOF0-2, DHT, DQT, DRI, SOS
_NO_SEGMENT = 0

# FF is followed by 00 or a restart marker in the data of a scan, and by FF where it pads
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

_MOST_SCANS = 500
"""Encoders write about ten; each takes a pass over the whole picture, so that 30,000 take minutes."""
_MOST_SEGMENTS = 10_000
"""Each becomes objects in memory when the file is opened; a profile of 10 MB takes 160."""
_MOST_BETWEEN = 1_000_000  # bytes between two segments; Pillow skips them one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegStructure:
    """A JPEG by its segments.

    `whole`: it has its end mark; `bare`: it holds no EXIF, XMP, ICC, IPTC, comment or thumbnail, and
    nothing behind its end; `scans`: how many passes it comes in.
    """

    whole: bool
    bare: bool
    scans: int


def survey(data: bytes) -> JpegStructure:
    """Look at all segments, in a fraction of the time that decoding takes.

    Raises:
        ImageError: bad_image, more scans, segments or stray bytes than any picture has.
    """
    bare, scans, marker = True, 0, _NO_SEGMENT
    for number, (marker, payload) in enumerate(_segments(data)):
        bare = bare and _is_bare(marker, payload)
        scans += marker == _START_OF_SCAN
        if scans > _MOST_SCANS or number > _MOST_SEGMENTS:
            most = f"{_MOST_SCANS} scans or {_MOST_SEGMENTS} segments"
            raise ImageError(f"the JPEG comes in more than {most}, as no picture does")
    whole = marker == _END_OF_IMAGE
    return JpegStructure(whole=whole, bare=bare and whole, scans=scans)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and payload of each segment up to the end mark, whose payload is all that follows it.

    Bytes between segments, over which decoders skip, count as _NO_SEGMENT.
    """
    at, in_scan = 2, False
    while found := _MARKER.search(data, at):
        if found.start() > at and not in_scan:
            if found.start() - at > _MOST_BETWEEN:
                raise ImageError("the JPEG holds more than a megabyte of stray bytes before its picture")
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
