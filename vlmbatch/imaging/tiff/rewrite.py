"""Rewrites a TIFF in its plainest form: one page, and only the tags that describe its picture."""

import itertools
import struct
from collections.abc import Iterable

from vlmbatch.errors import ImageError
from vlmbatch.imaging.tiff.structure import MOST_TAGS, Tag, directories, is_big

_SIZES = dict(zip((*range(1, 14), 16, 17, 18), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True))
"""Bytes of a value of each type (TIFF 6.0 section 2, and BigTIFF's)."""
_WIDE = frozenset((16, 18))  # LONG8 and IFD8
_LONG = 4
_INTEGERS = {3: "H", _LONG: "I"}
_PLACES = frozenset((273, 279, 324, 325))  # offsets and lengths of strips and tiles

_PICTURE_TAGS = frozenset(
    (
        *(256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 292, 293, 296, 317, 320),
        *(322, 323, 324, 325, 332, 334, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521),
        *(529, 530, 531, 532, 700, 34675, 42113),
    )
)
"""Size, samples, no data, colours, compression, strips, tiles, old-style JPEG, resolution, XMP, profile."""


def single_page(data: bytes, at: int | None = None) -> bytes:
    """A classic TIFF with the page whose directory is at this byte, or the first one, and nothing else.

    Pillow reads it also if the file was a BigTIFF in big-endian order, or if the page was not the first one,
    and tifffile finds no metadata to interpret. The pixels stay at their places.

    Raises:
        ImageError: bad_image, the tables of the page are longer than the file.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = is_big(data)
    found = next(directories(data, at), None)
    tags = itertools.islice(found.tags if found else (), MOST_TAGS)
    wanted = {tag.number: tag for tag in tags if tag.number in _PICTURE_TAGS and tag.kind in _SIZES}
    try:
        return _written(data, order, big, [wanted[number] for number in sorted(wanted)])
    except (struct.error, OverflowError) as error:
        raise ImageError("the TIFF cannot be opened: a table points outside the file") from error


def _written(data: bytes, order: str, big: bool, tags: Iterable[Tag]) -> bytes:
    entries, tables = [], bytearray(len(data) % 2)  # a directory begins at an even byte
    numbers: dict[int, tuple[int, ...]] = {}
    for tag in tags:
        kind, value = _value(data, order, big, tag)
        if tag.number in _PLACES and kind in _INTEGERS:
            numbers[tag.number] = struct.unpack(f"{order}{tag.values}{_INTEGERS[kind]}", value)
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            field = struct.pack(f"{order}I", len(data) + len(tables))
            tables += value + bytes(len(value) % 2)
        if len(tables) > len(data) + 4096:
            raise ImageError("the tables of the TIFF are longer than the file")
        entries.append(struct.pack(f"{order}HHI4s", tag.number, kind, tag.values, field))
    _check_places(numbers, len(data))
    head = data[:2] + struct.pack(f"{order}HI", 42, len(data) + len(tables))
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    # the first bytes of a BigTIFF's longer header stay behind the shorter one, where nothing points to
    return b"".join((head, memoryview(data)[len(head) :], tables, directory))


def _check_places(numbers: dict[int, tuple[int, ...]], end: int) -> None:
    """Refuse strips or tiles that end behind the file, where its tables are about to be."""
    for offsets, counts in ((273, 279), (324, 325)):
        places = zip(numbers.get(offsets, ()), numbers.get(counts, ()), strict=False)
        if any(at + size > end for at, size in places):
            raise ImageError(
                "the TIFF is truncated: some of its strips or tiles are missing; get a whole copy"
            )


def _value(data: bytes, order: str, big: bool, tag: Tag) -> tuple[int, bytes]:
    """Type and bytes of the values of a tag; integers of 64 bits become those of 32."""
    size = _SIZES[tag.kind] * tag.values
    value = tag.field[:size]
    if size > len(tag.field):
        (place,) = struct.unpack(f"{order}{'Q' if big else 'I'}", tag.field)
        value = bytes(memoryview(data)[place : place + size])
        if len(value) < size:
            raise struct.error
    if tag.kind not in _WIDE:
        return tag.kind, value
    numbers = struct.unpack(f"{order}{tag.values}Q", value)
    return _LONG, struct.pack(f"{order}{tag.values}I", *numbers)
