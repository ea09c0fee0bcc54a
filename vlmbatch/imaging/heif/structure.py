"""Reads the boxes of an AVIF or HEIC without decoding it: its colour space, and whether it is turned."""

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vlmbatch.imaging.colours.cicp import Cicp

_MOST_BOXES = 10_000
"""The limit for one level; a photo of a phone has about 100 properties."""
_MOST_BYTES = 250_000
"""The limit for a table that assigns properties to items; a photo of a phone has 500 bytes."""
_MOST_TABLES = 4  # one for each version and width of its numbers (ISO/IEC 23008-12 section 9.3.1)
_SAMPLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
"""The way to the description of the frames of a sequence (ISO/IEC 14496-12 section 8)."""
_TO_SAMPLE_ENTRY, _TO_SAMPLE_BOXES = 8, 78  # bytes (ISO/IEC 14496-12 sections 8.5.2 and 12.1.3)


class HeifStructure(NamedTuple):
    """What the properties of the primary picture say.

    `cicp` is None without an nclx colour property. `has_turn` says that a property turns or mirrors the
    picture, or says that it is upright.
    """

    cicp: Cicp | None = None
    has_turn: bool = False


def survey(data: bytes) -> HeifStructure:
    """The properties of the primary picture, then of the first track; broken boxes count as missing.

    Follows ISO/IEC 14496-12 (boxes) and ISO/IEC 23008-12 section 9.3 (item properties).
    """
    view = memoryview(data)
    try:
        properties = [*_primary_properties(_inside(view, b"meta")[4:]), *_sample_properties(view)]
        colours = (_nclx(body) for kind, body in properties if kind == b"colr")
        return HeifStructure(
            next(filter(None, colours), None), any(kind in (b"irot", b"imir") for kind, _ in properties)
        )
    except (struct.error, IndexError):
        return HeifStructure()


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The type and the content of each box; stops at an impossible length (ISO/IEC 14496-12 section 4.2)."""
    at = 0
    for _ in range(_MOST_BOXES):
        if len(view) - at < 8:
            return
        size, head = int.from_bytes(view[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(view[at + 8 : at + 16], "big"), 16
        size = size or len(view) - at
        if size < head:
            return
        yield bytes(view[at + 4 : at + 8]), view[at + head : at + size]
        at += size


def _inside(view: memoryview, *path: bytes) -> memoryview:
    """The content of the first box at this path; empty if it is missing."""
    for wanted in path:
        view = next((body for kind, body in _boxes(view) if kind == wanted), view[:0])
    return view


def _primary_properties(meta: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    primary = _inside(meta, b"pitm")
    properties = _inside(meta, b"iprp")
    if not primary or not properties:
        return
    item = int.from_bytes(primary[4 : 8 if primary[0] else 6], "big")
    known = [*_boxes(_inside(properties, b"ipco"))]
    tables = (body for kind, body in _boxes(properties) if kind == b"ipma")
    for table in itertools.islice(tables, _MOST_TABLES):
        yield from (known[number - 1] for number in _numbers(table, item) if 0 < number <= len(known))


def _numbers(table: memoryview, item: int) -> Iterator[int]:
    """The numbers of the properties of an item, counted from 1 (ISO/IEC 23008-12 section 9.3.1)."""
    version, flags, entries = struct.unpack_from(">B3sI", table)
    table = table[8:_MOST_BYTES]
    entry = ">IB" if version else ">HB"
    number, mask = (">H", 0x7FFF) if flags[2] & 1 else (">B", 0x7F)
    at = 0
    while entries and at < len(table):
        name, count = struct.unpack_from(entry, table, at)
        at += struct.calcsize(entry)
        size = count * struct.calcsize(number)
        if name == item:
            yield from (value & mask for (value,) in struct.iter_unpack(number, table[at : at + size]))
        at += size
        entries -= 1


def _sample_properties(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for _, entry in _boxes(_inside(view, *_SAMPLES)[_TO_SAMPLE_ENTRY:]):
        yield from _boxes(entry[_TO_SAMPLE_BOXES:])


def _nclx(colour: memoryview) -> Cicp | None:
    """The codes of a colour property; None if it holds an ICC profile."""
    if bytes(colour[:4]) != b"nclx":
        return None
    return Cicp(*struct.unpack_from(">HH", colour, 4))
