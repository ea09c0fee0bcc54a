"""GIF files: interlaced or not, global and local palettes, transparency, animation, and small first frames."""

import itertools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sweep.case import Case, Cases
from sweep.pictures import EVEN, ODD, Values, indexed, picture
from sweep.seconds import vips

_TRAILER = b"\x3b"


def cases() -> Cases:
    """Each file."""
    for size, bits, interlaced, local in itertools.product((EVEN, ODD), (1, 2, 4, 8), (False, True), (False, True)):
        table, index = indexed(bits, size)
        name = f"{'interlaced' if interlaced else 'plain'}, {'local' if local else 'global'} palette"
        shown = f"{name}, {size[0]}x{size[1]}"
        frame = _frame(index, bits, interlaced=interlaced, local=table if local else None)
        start = _start(size, None if local else table)
        seen = picture(table[index])
        yield _case(f"palette {bits}, {shown}", start + frame + _TRAILER, seen)
        other = _frame(index[::-1], bits, interlaced=interlaced, local=table if local else None)
        yield _case(f"animation {bits}, {shown}", start + _control(None) + frame + _control(None) + other + _TRAILER, seen)
        for clear in (0, 1):
            alpha = (index != clear).astype(float)
            data = start + _control(clear) + frame + _TRAILER
            yield _case(f"transparent {bits}, entry {clear}, {shown}", data, picture(table[index], alpha))
        yield from _part_cases(size, bits, interlaced=interlaced)


def _case(name: str, data: bytes, truth: NDArray[np.uint8]) -> Case:
    return Case(format="GIF", name=name, data=data, truth=truth, decoders=(vips,))


def _part_cases(size: tuple[int, int], bits: int, *, interlaced: bool) -> Cases:
    """A frame that covers only a part of the screen; around it nothing is drawn, as browsers show it."""
    table, index = indexed(bits, size)
    left, top = 40, 30
    part = index[top:-20, left:-10]
    alpha = np.zeros(index.shape)
    alpha[top:-20, left:-10] = 1
    data = _start(size, table) + _control(None) + _frame(part, bits, interlaced=interlaced, at=(left, top)) + _TRAILER
    name = f"part of the screen {bits}, {'interlaced' if interlaced else 'plain'}, {size[0]}x{size[1]}"
    yield _case(name, data, picture(table[index], alpha))


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
    blocks = b"".join(bytes((len(part),)) + part for part in (data[i : i + 255] for i in range(0, len(data), 255)))
    return b"\x2c" + struct.pack("<HHHHB", *at, width, height, flags) + colour_table + bytes((code,)) + blocks + b"\0"


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
