"""Reads the segments of a JPEG without decoding it: checks that it is whole and refuses scan bombs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vlmbatch.errors import ImageError

# markers of ITU-T T.81 table B.1
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
SEQUENTIAL_FRAMES = frozenset((0xC0, 0xC1))  # SOF0 and SOF1: each colour is coded in one scan
PROGRESSIVE_FRAME = 0xC2  # SOF2
NO_SEGMENT = 0

# in the data of a scan, FF is followed by 00 or a restart marker, and in padding by FF
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
END_MARK = b"\xff\xd9"

_MOST_SCANS = 500
"""Encoders write about ten; each needs a pass over the whole picture, so that 30,000 take minutes."""
_MOST_SEGMENTS = 10_000
"""Each becomes objects in memory when the file is opened; a profile of 10 MB has 160."""
_MOST_BETWEEN = 1_000_000  # bytes between two segments; Pillow skips them one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegStructure:
    """The structure of a JPEG: `whole` says that it has its end mark, `scans` is the number of its passes.

    `coded` is the place of the first coded data, 0 if there is none. `end` is the place of the last end mark
    if one scan has all colours, else 0. `is_coarse`: scans are missing, without which the picture is coarse.
    """

    whole: bool
    scans: int
    coded: int = 0
    end: int = 0
    is_coarse: bool = False


class Segment(NamedTuple):
    """A piece of a JPEG from its marker, `data[start:start + 2]`, to before `data[stop]`.

    The coded data of a scan follows its header (START_OF_SCAN), up to the next segment.
    """

    marker: int
    start: int
    stop: int


def survey(data: bytes) -> JpegStructure:
    """Check all segments; only those before the coded data if nothing but that can follow.

    Raises:
        ImageError: bad_image, more scans, segments or stray bytes than any real picture has.
    """
    marker, colours, coded, headers = NO_SEGMENT, b"", 0, list[bytes]()
    for segment in segments(data):
        marker = segment.marker
        if marker in SEQUENTIAL_FRAMES or marker == PROGRESSIVE_FRAME:
            colours, is_sequential = _colours(data, segment), marker != PROGRESSIVE_FRAME
        elif marker == START_OF_SCAN:
            headers.append(data[segment.start + 4 : segment.stop])
            coded = coded or segment.stop
            # a scan with all colours is the only one, so its megabytes need no search: decoders ignore a
            # second scan
            if len(headers) == 1 and colours and is_sequential and headers[0][:1] == bytes([len(colours)]):
                end = data.rfind(END_MARK, coded)
                return JpegStructure(whole=end >= 0, scans=1, coded=coded, end=max(end, 0))
    return JpegStructure(
        whole=marker == END_OF_IMAGE,
        scans=len(headers),
        coded=coded,
        is_coarse=_lacks_bits(colours, headers),
    )


def segments(data: bytes) -> Iterator[Segment]:
    """Each segment up to the end mark; a length that points beyond the data is not corrected.

    Bytes between segments, which decoders skip, are reported as NO_SEGMENT.

    Raises:
        ImageError: bad_image, more scans, segments or stray bytes than any real picture has.
    """
    at, in_scan, scans, number = 2, False, 0, 0
    while found := _MARKER.search(data, at):
        number += 1
        if scans > _MOST_SCANS or number > _MOST_SEGMENTS:
            most = f"{_MOST_SCANS} scans or {_MOST_SEGMENTS} segments"
            raise ImageError(f"the JPEG has more than {most}, unlike any real picture")
        if found.start() > at and not in_scan:
            if found.start() - at > _MOST_BETWEEN:
                raise ImageError("the JPEG has more than a megabyte of stray bytes before its picture")
            yield Segment(NO_SEGMENT, at, found.start())
        marker, at = data[found.end() - 1], found.end()
        if marker in (START_OF_IMAGE, _TEMPORARY):  # these have no payload
            yield Segment(NO_SEGMENT, found.start(), at)
            continue
        if marker != END_OF_IMAGE:
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
        yield Segment(marker, found.start(), at)
        if marker == END_OF_IMAGE:
            return
        in_scan = marker == START_OF_SCAN
        scans += in_scan


def _colours(data: bytes, frame: Segment) -> bytes:
    """The numbers of the components in a frame header (T.81 B.2.2)."""
    header = data[frame.start + 9 : frame.stop]
    return header[1 : 1 + 3 * header[0] : 3] if header else b""


def _lacks_bits(colours: bytes, headers: list[bytes]) -> bool:
    """Whether no scan codes some coefficient of a component down to its last bit (T.81 B.2.3 and G.1.2)."""
    low = {number: bytearray(b"\xff" * 64) for number in colours}
    for header in headers:
        first, last, bits = header[-3:].rjust(3, b"\0")
        for number in header[1:-3:2]:
            if number in low:
                low[number][first : last + 1] = bytes([bits & 15]) * (last + 1 - first)
    return any(bits.strip(b"\0") for bits in low.values())
