"""GIF files: interlaced or not, both kinds of palettes, transparency, animation, small first frames."""

import itertools
import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.case import Case, Cases
from sweep.pictures import EVEN, ODD, Values, indexed, picture
from sweep.seconds import vips

_TRAILER = b"\x3b"


def cases() -> Cases:
    """Each file."""
    for size, bits, interlaced in itertools.product((EVEN, ODD), (1, 2, 4, 8), (False, True)):
        yield from _whole_cases(size, bits, interlaced=interlaced)
        yield from _part_cases(size, bits, interlaced=interlaced)


def _whole_cases(size: tuple[int, int], bits: int, *, interlaced: bool) -> Cases:
    table, index = indexed(bits, size)
    seen = picture(table[index])
    for local in (False, True):
        way = f"{'interlaced' if interlaced else 'plain'}, {'local' if local else 'global'} palette"
        way += f", {size[0]}x{size[1]}"
        frame, other = (
            _frame(rows, bits, interlaced=interlaced, local=table if local else None)
            for rows in (index, index[::-1])
        )
        start = _start(size, None if local else table)
        yield _case(f"palette {bits}, {way}", start + frame + _TRAILER, seen)
        frames = _control(None) + frame + _control(None) + other
        yield _case(f"animation {bits}, {way}", start + frames + _TRAILER, seen)
        for clear in (0, 1):
            data = start + _control(clear) + frame + _TRAILER
            visible = picture(table[index], (index != clear).astype(float))
            yield _case(f"transparent {bits}, entry {clear}, {way}", data, visible)


def _case(name: str, data: bytes, truth: NDArray[np.uint8]) -> Case:
    return Case(format="GIF", name=name, data=data, truth=truth, decoders=(vips,))


def _part_cases(size: tuple[int, int], bits: int, *, interlaced: bool) -> Cases:
    """A frame that covers only a part of the screen; around it nothing is drawn, as browsers show it."""
    table, index = indexed(bits, size)
    left, top = 40, 30
    part = index[top:-20, left:-10]
    alpha = np.zeros(index.shape)
    alpha[top:-20, left:-10] = 1
    frame = _frame(part, bits, interlaced=interlaced, at=(left, top))
    way = f"{'interlaced' if interlaced else 'plain'}, {size[0]}x{size[1]}"
    data = _start(size, table) + _control(None) + frame + _TRAILER
    # libvips fills the rest with black, which no viewer shows
    yield replace(_case(f"part of the screen {bits}, {way}", data, picture(table[index], alpha)), decoders=())
    alpha *= index != 1
    data = _start(size, table) + _control(1) + frame + _TRAILER
    yield _case(f"transparent part of the screen {bits}, {way}", data, picture(table[index], alpha))


def _start(size: tuple[int, int], table: Values | None) -> bytes:
    flags = 0x70 if table is None else 0xF0 | (len(table).bit_length() - 2)
    colour_table = b"" if table is None else np.rint(table * 255).astype(np.uint8).tobytes()
    return b"GIF89a" + struct.pack("<HHBBB", *size, flags, 0, 0) + colour_table


def _control(clear: int | None) -> bytes:
    """A graphic control extension, with the transparent entry."""
    return b"\x21\xf9\x04" + struct.pack("<BHB", clear is not None, 10, clear or 0) + b"\0"


def _frame(
    index: NDArray[Any],
    bits: int,
    *,
    interlaced: bool,
    local: Values | None = None,
    at: tuple[int, int] = (0, 0),
) -> bytes:
    height, width = index.shape
    flags = 0x40 * interlaced | (0 if local is None else 0x80 | (len(local).bit_length() - 2))
    colour_table = b"" if local is None else np.rint(local * 255).astype(np.uint8).tobytes()
    if interlaced:  # every eighth row, then those between (GIF89a appendix E)
        index = np.vstack([index[first::step] for first, step in ((0, 8), (4, 8), (2, 4), (1, 2))])
    code = max(bits, 2)
    data = _lzw(index.astype(np.uint8).tobytes(), code)
    blocks = b"".join(
        bytes((len(part),)) + part for part in (data[i : i + 255] for i in range(0, len(data), 255))
    )
    return (
        b"\x2c"
        + struct.pack("<HHHHB", *at, width, height, flags)
        + colour_table
        + bytes((code,))
        + blocks
        + b"\0"
    )


def _lzw(data: bytes, code_bits: int) -> bytes:
    """The codes of GIF89a appendix F; the table begins anew when it is full."""
    clear = 1 << code_bits
    table = {bytes((value,)): value for value in range(clear)}
    width, following = code_bits + 1, clear + 2
    bits, filled = clear, width
    known = b""
    for value in data:
        longer = known + bytes((value,))
        if longer in table:
            known = longer
            continue
        bits |= table[known] << filled
        filled += width
        if following < 4096:
            table[longer] = following
            width += following == 1 << width
            following += 1
        else:
            bits |= clear << filled
            filled += width
            table = {bytes((value,)): value for value in range(clear)}
            width, following = code_bits + 1, clear + 2
        known = bytes((value,))
    bits |= table[known] << filled
    filled += width
    bits |= (clear + 1) << filled
    filled += width
    return bits.to_bytes((filled + 7) // 8, "little")
