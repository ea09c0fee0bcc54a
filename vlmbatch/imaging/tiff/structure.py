"""Reads the directories of a TIFF before it is opened: finds its pages, and refuses hostile tables."""

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vlmbatch.errors import ImageError

MOST_PAGES = 10_000
"""More are not counted: Pillow takes a minute to count 100,000."""
_MOST_VALUES = 1_000_000
"""The limit for one tag. Each strip or tile of a picture becomes a Python object when the file is opened."""
MOST_TAGS = 4096
"""The limit for one page, that of tifffile, too."""
_OF_BYTES = frozenset((1, 2, 6, 7))  # types BYTE, ASCII, SBYTE and UNDEFINED, which profiles use
_SHORT = 3
_FIRST_TAGS = 4
"""The tags of a directory are sorted, and those that say what its picture is have the lowest numbers."""
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _IMAGE_WIDTH = 254, 255, 256
_SMALLER_OR_MASK, _OLD_SMALLER = 0b101, 2
_DNG_VERSION, _SUB_IFDS, _MAKE = 50706, 330, 271


class Tag(NamedTuple):
    """An entry of a directory: number, type and count of its values, and the field of the first ones."""

    number: int
    kind: int
    values: int
    field: bytes


class Directory(NamedTuple):
    """The byte at which a directory begins, and its tags."""

    at: int
    tags: Iterator[Tag]


class TiffStructure(NamedTuple):
    """What the chain of directories says: the page to read, and how many there are.

    `at` is the byte of the directory of the first page that is no smaller version or mask of another one;
    None if it is the first of the file. `only_preview`: there is no such page, only smaller versions.
    """

    pages: int = 1
    at: int | None = None
    only_preview: bool = False
    is_raw: bool = False


def check_preview(structure: TiffStructure, size: tuple[int, int], warnings: list[str]) -> None:
    """Add a warning if a TIFF has only a preview, of this size."""
    if not structure.only_preview:
        return
    advice = "; it seems to be a raw file of a camera: develop it first" if structure.is_raw else ""
    warnings.append(f"the file has only a preview of {size[0]}x{size[1]} pixels, which was sent{advice}")


def survey(data: bytes) -> TiffStructure:
    """The pages of a TIFF; the page to read is checked, the other pages are only counted.

    Smaller versions and masks of a page do not count. Follows the chain of directories of TIFF 6.0 section 2,
    and of BigTIFF, whose numbers are wider.

    Raises:
        ImageError: bad_image, a table of the page has more entries than any picture needs.
    """
    little = data[:2] == b"II"
    pages, at = 0, None
    first: list[Tag] = []
    for number, found in enumerate(itertools.islice(directories(data), MOST_PAGES)):
        tags = list(itertools.islice(found.tags, _FIRST_TAGS))
        if number == 0:
            first = _checked([*tags, *itertools.islice(found.tags, MOST_TAGS)])
        if any(_is_preview_or_mask(tag, little=little) for tag in tags):
            continue
        pages += 1
        if pages == 1 and number > 0 and any(tag.number == _IMAGE_WIDTH for tag in tags):
            at = found.at
            _checked([*tags, *itertools.islice(found.tags, MOST_TAGS)])
    numbers = {tag.number for tag in first}
    return TiffStructure(
        pages=max(pages, 1),
        at=at,
        only_preview=at is None
        and any(_is_preview_or_mask(tag, little=little) for tag in first[:_FIRST_TAGS]),
        is_raw=_DNG_VERSION in numbers or {_MAKE, _SUB_IFDS} <= numbers,
    )


def _checked(tags: list[Tag]) -> list[Tag]:
    """The tags of the page to read, if they look like those of a picture."""
    if len(tags) > MOST_TAGS:
        raise ImageError(f"the TIFF has a page with more than {MOST_TAGS} tags, unlike any real picture")
    if any(tag.kind not in _OF_BYTES and tag.values > _MOST_VALUES for tag in tags):
        raise ImageError(f"the TIFF has a table of more than {_MOST_VALUES} entries, unlike any real picture")
    return tags


def _is_preview_or_mask(tag: Tag, *, little: bool) -> bool:
    """Whether this tag marks its picture as a smaller version or a mask of another one."""
    field = tag.field[: 2 if tag.kind == _SHORT else 4]
    value = int.from_bytes(field, "little" if little else "big")
    if tag.number == _NEW_SUBFILE_TYPE:
        return value & _SMALLER_OR_MASK != 0
    return tag.number == _SUBFILE_TYPE and value == _OLD_SMALLER


def is_big(data: bytes) -> bool:
    """Whether the file is a BigTIFF."""
    return data[2:4] in (b"+\x00", b"\x00+")


def directories(data: bytes, at: int | None = None) -> Iterator[Directory]:
    """Each directory of the chain from byte `at`, or from the header; stops if the chain is broken."""
    order = "<" if data[:2] == b"II" else ">"
    big = is_big(data)
    head, entry, link = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    size = struct.calcsize(f"{order}{entry}")
    seen = set[int]()
    view = memoryview(data)  # slices of a hostile file, each as long as the file, must not be copied
    try:
        if at is None:
            (at,) = struct.unpack_from(f"{order}{link}", data, 8 if big else 4)
        while at and at not in seen:
            seen.add(at)
            (number,) = struct.unpack_from(f"{order}{head}", data, at)
            start = at + struct.calcsize(f"{order}{head}")
            table = view[start : start + number * size]
            yield Directory(at, itertools.starmap(Tag, struct.iter_unpack(f"{order}{entry}", table)))
            (at,) = struct.unpack_from(f"{order}{link}", data, start + number * size)
    except (struct.error, OverflowError):  # it points outside the file; the pages before it count
        return
