"""Reads the segments of a JPEG without decoding it: checks that it is whole and refuses scan bombs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vlmbatch.errors import ImageError

# markers of ITU-T T.81 table B.1
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
SEQUENTIAL_FRAMES = frozenset((0xC0, 0xC1))  # SOF0 and SOF1: each colour is coded in one scan
NO_SEGMENT = 0

# in the data of a scan, FF is followed by 00 or a restart marker, and in padding by FF
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_END_MARK = b"\xff\xd9"

_MOST_SCANS = 500
"""Encoders write about ten; each needs a pass over the whole picture, so that 30,000 take minutes."""
_MOST_SEGMENTS = 10_000
"""Each becomes objects in memory when the file is opened; a profile of 10 MB has 160."""
_MOST_BETWEEN = 1_000_000  # bytes between two segments; Pillow skips them one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegStructure:
    """The structure of a JPEG: `whole` says that it has its end mark, `scans` is the number of its passes."""

    whole: bool
    scans: int


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
    scans, marker, colours = 0, NO_SEGMENT, 0
    for segment in segments(data):
        marker = segment.marker
        if marker in SEQUENTIAL_FRAMES:
            colours = _colours(data, segment, 9)
        elif marker == START_OF_SCAN:
            scans += 1
            # a scan with all colours is the only one, so its megabytes need no search: decoders ignore a
            # second scan
            if scans == 1 and colours and _colours(data, segment, 4) == colours:
                return JpegStructure(whole=data.rfind(_END_MARK, segment.stop) >= 0, scans=1)
    return JpegStructure(whole=marker == END_OF_IMAGE, scans=scans)


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


def _colours(data: bytes, segment: Segment, at: int) -> int:
    """The number of colours in the header of a frame or scan, from its byte `at`; 0 if it is cut off."""
    place = segment.start + at
    return data[place] if place < min(segment.stop, len(data)) else 0
