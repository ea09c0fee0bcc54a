"""Leaves broken ancillary chunks out of a PNG, as libpng and browsers do; Pillow refuses the whole file."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar
from zlib import crc32

from vlmbatch.errors import ImageError

Read = TypeVar("Read")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AROUND = 12  # bytes of a chunk around its body: length, type and checksum (PNG 3rd edition, section 5.3)
_MOST_CHUNKS = 100_000
_RUN = 256  # bytes; what a disk loses has 512 or more

_LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
"""The fewest bytes of a body that Pillow accepts."""
_LEAST_TRANSPARENCY = {0: 2, 2: 6}  # by the type of colour: grey, RGB
_ANIMATION = frozenset((b"acTL", b"fcTL", b"fdAT"))
_LOOKS = frozenset((b"tRNS", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"eXIf"))
"""Chunks without which a picture may look different."""


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    stop: int
    body: memoryview
    is_intact: bool  # by its checksum

    @property
    def is_ancillary(self) -> bool:
        return self.kind[:1].islower()


def without_broken_chunks(read: Callable[[bytes, list[str]], Read], data: bytes) -> Read:
    """Call `read` with the data and warnings; if it refuses a PNG, call it again without broken chunks.

    Raises:
        ImageError: `read` refuses the data without broken chunks, too, or a critical chunk is broken.
    """
    told: list[str] = []
    while True:
        try:
            return read(data, list(told))
        except ImageError as error:
            is_png = error.kind == "bad_image" and data.startswith(_SIGNATURE)
            if not is_png or (rest := _without_broken(data, told)) is None:
                raise
            data = rest


def check_zeros(data: bytes) -> None:
    """Refuse a PNG of which a part was lost and is now zeros; Pillow would decode them to one colour.

    It does not look at the checksums of the picture data. They are computed only if there is a run of zeros.

    Raises:
        ImageError: bad_image.
    """
    if bytes(_RUN) in data:
        for chunk in _chunks(data):
            if chunk.kind == b"IDAT":
                _check(chunk)


def _without_broken(data: bytes, told: list[str]) -> bytes | None:
    """The PNG without its broken chunks, or without its animation; None if it has neither."""
    chunks = list(_chunks(data))
    colour = data[25] if len(data) > 25 else 0
    broken = [chunk for chunk in chunks if _is_broken(chunk, colour)]
    animation = [chunk for chunk in chunks if chunk.kind in _ANIMATION]
    left_out = broken or animation
    if not left_out:
        return None
    told.append(_told({chunk.kind for chunk in left_out}))
    kept, at = list[bytes](), 0
    for chunk in left_out:
        kept.append(data[at : chunk.start])
        at = chunk.stop
    return b"".join((*kept, data[at:]))


def _told(broken: set[bytes]) -> str:
    if broken <= _ANIMATION:
        return "the animation of the PNG is broken, so its still picture was sent"
    names = ", ".join(sorted(kind.decode("ascii") for kind in broken))
    effect = "; the picture may look different" if broken & _LOOKS else ""
    return f"broken data in the PNG ({names}) was left out{effect}"


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks up to the first that is cut off or has no possible type; not more than any real file has."""
    view, at = memoryview(data), len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        kind = data[at + 4 : at + 8]
        stop = at + _AROUND + int.from_bytes(data[at : at + 4], "big")
        if stop > len(data) or not (kind.isalpha() and kind.isascii()):
            return
        is_intact = crc32(view[at + 4 : stop - 4]) == int.from_bytes(data[stop - 4 : stop], "big")
        yield _Chunk(kind, at, stop, view[at + 8 : stop - 4], is_intact)
        at = stop


def _is_broken(chunk: _Chunk, colour: int) -> bool:
    """Whether a decoder has to leave out this chunk.

    Raises:
        ImageError: it is a critical chunk.
    """
    if not chunk.is_ancillary:
        _check(chunk)
        return False
    if not chunk.is_intact or len(chunk.body) < _LEAST.get(chunk.kind, 0):
        return True
    if chunk.kind == b"tRNS":
        return len(chunk.body) < _LEAST_TRANSPARENCY.get(colour, 0)
    return chunk.kind in (b"iCCP", b"zTXt") and not _is_deflated(chunk)


def _check(chunk: _Chunk) -> None:
    """Refuse a PNG for a chunk without which there is no picture."""
    if not chunk.is_intact:
        kind = chunk.kind.decode("ascii")
        raise ImageError(f"the PNG is damaged: the checksum of its {kind} chunk is wrong; get a whole copy")


def _is_deflated(chunk: _Chunk) -> bool:
    """Whether the body is a name and data in the only compression method (section 11.3.3)."""
    _, separator, rest = bytes(chunk.body[:81]).partition(b"\x00")
    return bool(separator) and rest[:1] == b"\x00"
