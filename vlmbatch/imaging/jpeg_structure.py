"""What the segments of a JPEG tell without decoding it: whether it is whole, and not made to stall."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vlmbatch.errors import ImageError

# markers of ITU-T T.81 table B.1
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
SEQUENTIAL_FRAMES = frozenset((0xC0, 0xC1))  # SOF0 and SOF1: each colour is coded in one scan
NO_SEGMENT = 0

# FF is followed by 00 or a restart marker in the data of a scan, and by FF where it pads
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_END_MARK = b"\xff\xd9"

_MOST_SCANS = 500
"""Encoders write about ten; each takes a pass over the whole picture, so that 30,000 take minutes."""
_MOST_SEGMENTS = 10_000
"""Each becomes objects in memory when the file is opened; a profile of 10 MB takes 160."""
_MOST_BETWEEN = 1_000_000  # bytes between two segments; Pillow skips them one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegStructure:
    """A JPEG by its segments: `whole`, it has its end mark; `scans`, how many passes it comes in."""

    whole: bool
    scans: int


class Segment(NamedTuple):
    """A piece of a JPEG from its marker, `data[start:start + 2]`, to before `data[stop]`.

    Behind the header of a scan (START_OF_SCAN) stands its coded data, up to the next segment.
    """

    marker: int
    start: int
    stop: int


def survey(data: bytes) -> JpegStructure:
    """Look at all segments, or at those before the coded data where that is all that can follow.

    Raises:
        ImageError: bad_image, more scans, segments or stray bytes than any picture has.
    """
    scans, marker, colours = 0, NO_SEGMENT, 0
    for segment in segments(data):
        marker = segment.marker
        if marker in SEQUENTIAL_FRAMES:
            colours = _colours(data, segment, 9)
        elif marker == START_OF_SCAN:
            scans += 1
            # one scan that holds all colours is the only one, and its megabytes need not be looked at: no
            # decoder takes a second
            if scans == 1 and colours and _colours(data, segment, 4) == colours:
                return JpegStructure(whole=data.rfind(_END_MARK, segment.stop) >= 0, scans=1)
    return JpegStructure(whole=marker == END_OF_IMAGE, scans=scans)


def segments(data: bytes) -> Iterator[Segment]:
    """Each segment up to the end mark; a length that leads out of the data is left as it is.

    Bytes between segments, over which decoders skip, count as one of NO_SEGMENT.

    Raises:
        ImageError: bad_image, more scans, segments or stray bytes than any picture has.
    """
    at, in_scan, scans, number = 2, False, 0, 0
    while found := _MARKER.search(data, at):
        number += 1
        if scans > _MOST_SCANS or number > _MOST_SEGMENTS:
            most = f"{_MOST_SCANS} scans or {_MOST_SEGMENTS} segments"
            raise ImageError(f"the JPEG comes in more than {most}, as no picture does")
        if found.start() > at and not in_scan:
            if found.start() - at > _MOST_BETWEEN:
                raise ImageError("the JPEG holds more than a megabyte of stray bytes before its picture")
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
    """How many colours the header of a frame or of a scan names, in its byte `at`; 0 where it is cut."""
    place = segment.start + at
    return data[place] if place < min(segment.stop, len(data)) else 0
