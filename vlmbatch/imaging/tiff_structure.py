"""Reads the directories of a TIFF before it is opened: counts its pages and refuses oversized tables."""

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vlmbatch.errors import ImageError

MOST_PAGES = 10_000
"""More are not counted: Pillow takes a minute to count 100,000."""
_MOST_VALUES = 1_000_000
"""The limit for one tag. Each strip or tile of a picture becomes a Python object when the file is opened."""
_OF_BYTES = frozenset((1, 2, 6, 7))  # types BYTE, ASCII, SBYTE and UNDEFINED, which profiles use
_SHORT = 3
_FIRST_TAGS = 4
"""The tags of a directory are sorted, and those that say what its picture is have the lowest numbers."""
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255
_SMALLER_OR_MASK, _OLD_SMALLER = 0b101, 2


class Tag(NamedTuple):
    """An entry of a directory: number, type and count of its values, and the field of the first ones."""

    number: int
    kind: int
    values: int
    field: bytes


def survey(data: bytes) -> int:
    """The number of pages, at least 1; the first page is checked, the other pages are only counted.

    Smaller versions and masks of a page do not count. Follows the chain of directories of TIFF 6.0 section 2,
    and of BigTIFF, whose numbers are wider.

    Raises:
        ImageError: bad_image, a table of the first page has more entries than any picture needs.
    """
    pages = 0
    for number, tags in enumerate(itertools.islice(_directories(data), MOST_PAGES)):
        if number == 0 and any(tag.kind not in _OF_BYTES and tag.values > _MOST_VALUES for tag in tags):
            raise ImageError(
                f"the TIFF has a table of more than {_MOST_VALUES} entries, unlike any real picture"
            )
        first = itertools.islice(tags, _FIRST_TAGS)
        pages += number == 0 or not any(_is_version(tag, little=data[:2] == b"II") for tag in first)
    return max(pages, 1)


def _is_version(tag: Tag, *, little: bool) -> bool:
    """Whether this tag marks its picture as a smaller version or a mask of another one."""
    field = tag.field[: 2 if tag.kind == _SHORT else 4]
    value = int.from_bytes(field, "little" if little else "big")
    if tag.number == _NEW_SUBFILE_TYPE:
        return value & _SMALLER_OR_MASK != 0
    return tag.number == _SUBFILE_TYPE and value == _OLD_SMALLER


def _directories(data: bytes) -> Iterator[Iterator[Tag]]:
    """For each directory, its tags; stops if the chain is broken."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    head, entry, link = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    size = struct.calcsize(f"{order}{entry}")
    seen = set[int]()
    view = memoryview(data)  # slices of a hostile file, each as long as the file, must not be copied
    try:
        (at,) = struct.unpack_from(f"{order}{link}", data, 8 if big else 4)
        while at and at not in seen:
            seen.add(at)
            (number,) = struct.unpack_from(f"{order}{head}", data, at)
            start = at + struct.calcsize(f"{order}{head}")
            table = view[start : start + number * size]
            yield itertools.starmap(Tag, struct.iter_unpack(f"{order}{entry}", table))
            (at,) = struct.unpack_from(f"{order}{link}", data, start + number * size)
    except (struct.error, OverflowError):  # it points outside the file; the pages before it count
        return
