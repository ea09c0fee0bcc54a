"""Reads the directories of a TIFF before it is opened: counts its pages and refuses oversized tables."""

import struct
from collections.abc import Iterator

from vlmbatch.errors import ImageError

MOST_PAGES = 10_000
"""More are not counted: Pillow takes a minute to count 100,000."""
_MOST_VALUES = 1_000_000
"""The limit for one tag. Each strip or tile of a picture becomes a Python object when the file is opened."""
_OF_BYTES = frozenset((1, 2, 6, 7))  # types BYTE, ASCII, SBYTE and UNDEFINED, which profiles use


def survey(data: bytes) -> int:
    """The number of pages, at least 1; the first page is checked, the other pages are only counted.

    Follows the chain of directories of TIFF 6.0 section 2, and of BigTIFF, whose numbers are wider.

    Raises:
        ImageError: bad_image, a table of the first page has more entries than any picture needs.
    """
    pages = 0
    for pages, entries in enumerate(_directories(data), 1):
        if pages == 1 and any(kind not in _OF_BYTES and count > _MOST_VALUES for kind, count in entries):
            raise ImageError(
                f"the TIFF has a table of more than {_MOST_VALUES} entries, unlike any real picture"
            )
        if pages == MOST_PAGES:
            break
    return max(pages, 1)


def _directories(data: bytes) -> Iterator[Iterator[tuple[int, int]]]:
    """For each directory, the type and the count of each of its tags; stops if the chain is broken."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    head, entry, link = ("Q", "HHQ8x", "Q") if big else ("H", "HHI4x", "I")
    size = struct.calcsize(f"{order}{entry}")
    seen = set[int]()
    try:
        (at,) = struct.unpack_from(f"{order}{link}", data, 8 if big else 4)
        while at and at not in seen:
            seen.add(at)
            (number,) = struct.unpack_from(f"{order}{head}", data, at)
            start = at + struct.calcsize(f"{order}{head}")
            table = data[start : start + number * size]
            yield ((kind, count) for _, kind, count in struct.iter_unpack(f"{order}{entry}", table))
            (at,) = struct.unpack_from(f"{order}{link}", data, start + number * size)
    except (struct.error, OverflowError):  # it points outside the file; the pages before it count
        return
