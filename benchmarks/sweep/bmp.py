"""BMP files: each depth, header and compression, from the documents of Windows and OS/2."""

import itertools
import struct
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sweep.case import Case, Cases
from sweep.pictures import (
    EVEN,
    ODD,
    Picture,
    Values,
    colours,
    grey,
    indexed,
    levels,
    opacity,
    picture,
    stepped,
)
from sweep.seconds import codec

_CORE, _INFO, _V2, _V3, _V4, _V5 = 12, 40, 52, 56, 108, 124
"""Bytes of each header."""
_PLAIN, _RLE8, _RLE4, _FIELDS = 0, 1, 2, 3
Rows = NDArray[np.uint8]


def cases() -> Cases:
    """Each file."""
    for size, flipped in itertools.product((EVEN, ODD), (False, True)):
        yield from _palette_cases(size, flipped=flipped)
        yield from _colour_cases(size, flipped=flipped)
    for size in (EVEN, ODD):
        yield from _run_length_cases(size)


def _case(name: str, size: tuple[int, int], data: bytes, truth: Picture) -> Case:
    shown = f"{name}, {size[0]}x{size[1]}"
    return Case(format="BMP", name=shown, data=data, truth=truth, decoders=(codec("bmp"),))


def _file(
    header: int,
    size: tuple[int, int],
    bits: int,
    pixels: bytes,
    *,
    compression: int = _PLAIN,
    masks: tuple[int, ...] = (),
    table: bytes = b"",
    flipped: bool = False,
) -> bytes:
    width, height = size
    if header == _CORE:
        info = struct.pack("<IHHHH", header, width, height, 1, bits)
    else:
        used = len(table) // 4
        signed = -height if flipped else height
        numbers = (header, width, signed, 1, bits, compression, len(pixels), 2835, 2835, used, 0)
        info = struct.pack("<IiiHHIIiiII", *numbers)
        info += struct.pack(f"<{len(masks)}I", *masks)  # in the header, or behind it if it is short
        info = info.ljust(header, b"\0")
        if header >= _V4:
            info = info[:56] + b"BGRs" + info[60:]
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + table + pixels


def _stored(rows: Rows, *, flipped: bool) -> bytes:
    """Rows of whole 32-bit words, the lowest row first unless they are flipped."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return (padded if flipped else padded[::-1]).tobytes()


def _table(colour_table: Values, *, is_core: bool = False) -> bytes:
    blue_first = np.rint(colour_table[:, ::-1] * 255).astype(np.uint8)
    return (blue_first if is_core else np.pad(blue_first, ((0, 0), (0, 1)))).tobytes()


def _palette_cases(size: tuple[int, int], *, flipped: bool) -> Cases:
    for bits, header in itertools.product((1, 2, 4, 8), (_CORE, _INFO, _V4, _V5)):
        if header == _CORE and flipped:
            continue
        table, index = indexed(bits, size)
        shifts = np.arange(bits - 1, -1, -1)
        packed = np.packbits(
            (index[..., None] >> shifts & 1).astype(np.uint8).reshape(len(index), -1), axis=1
        )
        data = _file(
            header,
            size,
            bits,
            _stored(packed, flipped=flipped),
            table=_table(table, is_core=header == _CORE),
            flipped=flipped,
        )
        name = f"palette {bits}, header of {header}{', top-down' if flipped else ''}"
        yield _case(name, size, data, picture(table[index]))
    shades = np.rint(grey(size) * 255).astype(np.uint8)
    ramp = _table(np.repeat(np.linspace(0, 1, 256)[:, None], 3, axis=1))
    data = _file(_INFO, size, 8, _stored(shades, flipped=flipped), table=ramp, flipped=flipped)
    yield _case(f"grey 8{', top-down' if flipped else ''}", size, data, picture(grey(size)))


def _colour_cases(size: tuple[int, int], *, flipped: bool) -> Cases:
    way = ", top-down" if flipped else ""
    for name, header, bits, masks, rows, truth in _colour_kinds(size):
        if header == _CORE and flipped:
            continue
        data = _file(
            header,
            size,
            bits,
            _stored(rows, flipped=flipped),
            compression=_FIELDS if masks else _PLAIN,
            masks=masks,
            flipped=flipped,
        )
        yield _case(f"{name}, header of {header}{way}", size, data, truth)


def _colour_kinds(size: tuple[int, int]) -> Iterator[tuple[str, int, int, tuple[int, ...], Rows, Picture]]:
    values = colours(size)
    blue_first = np.rint(values[..., ::-1] * 255).astype(np.uint8)
    height = size[1]
    for header in (_CORE, _INFO, _V4, _V5):
        yield "RGB 24", header, 24, (), blue_first.reshape(height, -1), picture(values)
    spare = np.pad(blue_first, ((0, 0), (0, 0), (0, 1)))
    full = np.pad(blue_first, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    yield "RGB 32 with a fourth byte of 0", _INFO, 32, (), spare.reshape(height, -1), picture(values)
    yield "RGB 32 with a fourth byte of 255", _INFO, 32, (), full.reshape(height, -1), picture(values)
    eight = (0xFF0000, 0xFF00, 0xFF)
    for header in (_INFO, _V2, _V3, _V4, _V5):
        masks = eight if header < _V3 else (*eight, 0)
        yield "RGB 32 by masks", header, 32, masks, spare.reshape(height, -1), picture(values)
        red_first = np.pad(blue_first[..., ::-1], ((0, 0), (0, 0), (0, 1))).reshape(height, -1)
        masks = (0xFF, 0xFF00, 0xFF0000) if header < _V3 else (0xFF, 0xFF00, 0xFF0000, 0)
        yield "RGB 32 by masks, red first", header, 32, masks, red_first, picture(values)
    alpha = np.rint(opacity(size)[..., None] * 255).astype(np.uint8)
    mixed = np.dstack((blue_first, alpha)).reshape(height, -1)
    for header in (_V3, _V4, _V5):
        masks = (*eight, 0xFF000000)
        yield "RGBA 32 by masks", header, 32, masks, mixed, picture(values, opacity(size))
        yield (
            "RGBA 32 by masks with an alpha of 0",
            header,
            32,
            masks,
            spare.reshape(height, -1),
            picture(values),
        )
    yield from _sixteen_bit_kinds(size)


def _sixteen_bit_kinds(
    size: tuple[int, int],
) -> Iterator[tuple[str, int, int, tuple[int, ...], Rows, Picture]]:
    values = colours(size)
    for name, depths, masked, headers in (
        ("RGB 555", (5, 5, 5), False, (_INFO, _V4, _V5)),
        ("RGB 555 by masks", (5, 5, 5), True, (_INFO, _V4, _V5)),
        ("RGB 565 by masks", (5, 6, 5), True, (_INFO, _V2, _V3, _V4, _V5)),
        ("RGB 444 by masks", (4, 4, 4), True, (_INFO, _V4)),
    ):
        steps = [stepped(values[..., channel], depth) for channel, depth in enumerate(depths)]
        red, green, blue = (levels(values[..., channel], depth) for channel, depth in enumerate(depths))
        words = (red << np.uint64(depths[1] + depths[2])) | (green << np.uint64(depths[2])) | blue
        rows = words.astype("<u2").view(np.uint8).reshape(size[1], -1)
        ones = [(1 << depth) - 1 for depth in depths]
        masks = (ones[0] << depths[1] + depths[2], ones[1] << depths[2], ones[2])
        for header in headers:
            given = (*masks, 0) if header >= _V3 else masks
            yield name, header, 16, given if masked else (), rows, picture(np.dstack(steps))


def _run_length_cases(size: tuple[int, int]) -> Cases:
    for bits, compression, pack in (
        (8, _RLE8, _runs),
        (8, _RLE8, _absolute),
        (4, _RLE4, _runs),
        (4, _RLE4, _absolute),
    ):
        table, index = indexed(bits, size)
        rows = b"".join(pack(row.astype(np.uint8).tolist(), bits) + b"\0\0" for row in index[::-1])
        for header in (_INFO, _V4):
            data = _file(header, size, bits, rows + b"\0\1", compression=compression, table=_table(table))
            yield _case(
                f"RLE{bits}, {pack.__name__[1:]}, header of {header}", size, data, picture(table[index])
            )


def _runs(row: list[int], bits: int) -> bytes:
    """Each run of an index as its length and the index, twice in a byte of 4 bits."""
    coded = bytearray()
    for index, run in itertools.groupby(row):
        length = len(list(run))
        value = index if bits == 8 else index << 4 | index
        coded += b"".join(bytes((min(255, length - done), value)) for done in range(0, length, 255))
    return bytes(coded)


def _absolute(row: list[int], bits: int) -> bytes:
    """Stretches of 3 to 254 indices as they are, padded to whole 16-bit words."""
    coded = bytearray()
    for start in range(0, len(row), 200):
        part = row[start : start + 200]
        if len(part) < 3:
            coded += _runs(part, bits)
            continue
        body = (
            bytes(part)
            if bits == 8
            else bytes(a << 4 | b for a, b in zip(part[::2], [*part[1::2], 0], strict=False))
        )
        coded += bytes((0, len(part))) + body + b"\0" * (len(body) % 2)
    return bytes(coded)


Pack = Callable[[list[int], int], bytes]
