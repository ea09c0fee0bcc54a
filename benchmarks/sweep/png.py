"""PNG files: each colour type and depth, plain and interlaced, with transparency, chunks and animation."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.case import Case, Cases
from sweep.light import linear
from sweep.pictures import (
    ODD,
    Picture,
    Values,
    colours,
    grey,
    indexed,
    laid,
    levels,
    muted,
    opacity,
    picture,
    stepped,
)
from sweep.seconds import codec, vips

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, and steps down and across of each pass (PNG third edition, section 8.2)."""
Chunk = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Samples of (height, width, channels), and what they mean."""

    name: str
    samples: NDArray[Any]
    bits: int
    colour: int
    truth: Picture
    chunks: tuple[Chunk, ...] = ()


def cases() -> Cases:
    """Each file."""
    for kind, interlaced in itertools.product((*_kinds(), *_transparent_kinds()), (False, True)):
        for filtered in (0, 1, 2):
            way = f"{'interlaced' if interlaced else 'plain'}, filter {filtered}"
            yield _case(kind, way, written(kind, interlaced=interlaced, filtered=filtered))
    yield from _chunk_cases()
    yield from _oriented_cases()
    yield from _animated_cases()


def _case(kind: Kind, way: str, data: bytes) -> Case:
    decoders = (vips, codec("apng", index=0)) if b"acTL" in data else (vips,)
    return Case(format="PNG", name=f"{kind.name}, {way}", data=data, truth=kind.truth, decoders=decoders)


def chunk(name: bytes, body: bytes, *, is_sound: bool = True) -> bytes:
    """A chunk with its checksum, or with a wrong one."""
    checksum = zlib.crc32(name + body) ^ (0 if is_sound else 0x55555555)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def head(kind: Kind, *, interlaced: bool = False) -> bytes:
    """The signature, IHDR and the chunks of the kind."""
    height, width, _ = kind.samples.shape
    header = struct.pack(">IIBBBBB", width, height, kind.bits, kind.colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(itertools.starmap(chunk, kind.chunks))


def body(kind: Kind, *, interlaced: bool = False, filtered: int = 0) -> bytes:
    """The compressed samples."""
    passes = [kind.samples]
    if interlaced:
        passes = [kind.samples[top::down, left::across] for top, left, down, across in _ADAM7]
    return zlib.compress(b"".join(_scanlines(part, kind.bits, filtered) for part in passes if part.size))


def written(kind: Kind, *, interlaced: bool = False, filtered: int = 0) -> bytes:
    """The whole file, its compressed samples in two chunks."""
    data = body(kind, interlaced=interlaced, filtered=filtered)
    half = len(data) // 2
    parts = chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
    return head(kind, interlaced=interlaced) + parts + chunk(b"IEND", b"")


def _scanlines(samples: NDArray[Any], bits: int, filtered: int) -> bytes:
    """Rows with the filter None, Sub or Up."""
    height, _, channels = samples.shape
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        flat = samples.astype(np.uint8).reshape(height, -1)
        shifts = np.arange(bits - 1, -1, -1, dtype=np.uint8)
        rows = np.packbits((flat[..., None] >> shifts & 1).reshape(height, -1), axis=1)
    step = max(1, bits * channels // 8)
    before = np.zeros_like(rows)
    if filtered == 1:
        before[:, step:] = rows[:, :-step]
    elif filtered == 2:
        before[1:] = rows[:-1]
    marked = np.hstack((np.full((height, 1), filtered, np.uint8), rows - before))
    return marked.tobytes()


def _kinds() -> Iterator[Kind]:
    for bits in (1, 2, 4, 8, 16):
        values = stepped(grey(), bits)
        yield _of(f"grey {bits}", values, bits, _GREY, picture(values))
    for bits in (8, 16):
        yield _of(f"RGB {bits}", colours(), bits, _RGB, picture(colours()))
        mixed = np.dstack((grey(), opacity()))
        yield _of(f"grey and alpha {bits}", mixed, bits, _GREY_ALPHA, picture(grey(), opacity()))
        mixed = np.dstack((colours(), opacity()))
        yield _of(f"RGBA {bits}", mixed, bits, _RGBA, picture(colours(), opacity()))
    for bits in (1, 2, 4, 8):
        table, index = indexed(bits)
        chunks = ((b"PLTE", np.rint(table * 255).astype(np.uint8).tobytes()),)
        yield Kind(
            name=f"palette {bits}",
            samples=index[..., None],
            bits=bits,
            colour=_PALETTE,
            truth=picture(table[index]),
            chunks=chunks,
        )


def _of(name: str, values: Values, bits: int, colour: int, truth: Picture, *chunks: Chunk) -> Kind:
    samples = levels(values, bits)
    samples = samples[..., None] if samples.ndim == 2 else samples
    return Kind(name=name, samples=samples, bits=bits, colour=colour, truth=truth, chunks=chunks)


def _transparent_kinds() -> Iterator[Kind]:
    """One transparent grey, colour, or entry of a palette (tRNS)."""
    for bits in (1, 2, 4, 8, 16):
        values = stepped(grey(), bits)
        alpha = (levels(values, bits) != 0).astype(float)
        clear = (b"tRNS", struct.pack(">H", 0))
        yield _of(f"grey {bits} with transparent black", values, bits, _GREY, picture(values, alpha), clear)
    for bits in (8, 16):
        values = colours()
        key = levels(values, bits)[-30, 20]
        alpha = (levels(values, bits) != key).any(axis=2).astype(float)
        values[: ODD[1] // 4] = values[-30, 20]
        alpha[: ODD[1] // 4] = 0
        clear = (b"tRNS", struct.pack(">3H", *key.tolist()))
        name = f"RGB {bits} with a transparent colour"
        yield _of(name, values, bits, _RGB, picture(values, alpha), clear)
    for bits in (1, 2, 4, 8):
        table, index = indexed(bits)
        alphas = 0.2 + 0.8 * table.mean(axis=1)  # neighbours alike: JPEG blurs noise
        yield Kind(
            name=f"palette {bits} with transparency",
            samples=index[..., None],
            bits=bits,
            colour=_PALETTE,
            truth=picture(table[index], alphas[index]),
            chunks=(
                (b"PLTE", np.rint(table * 255).astype(np.uint8).tobytes()),
                (b"tRNS", np.rint(alphas * 255).astype(np.uint8).tobytes()),
            ),
        )


_PLAIN_CHUNKS: tuple[Chunk, ...] = (
    (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
    (b"tEXt", b"Comment\0scan 12"),
    (b"zTXt", b"Comment\0\0" + zlib.compress(b"scan 12")),
    (b"iTXt", b"Comment\0\0\0\0\0scan 12"),
    (b"tIME", struct.pack(">HBBBBB", 2020, 1, 2, 3, 4, 5)),
    (b"gAMA", struct.pack(">I", 45455)),
    (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    (b"sRGB", b"\0"),
    (b"bKGD", struct.pack(">3H", 255, 0, 0)),
    (b"sBIT", b"\x08\x08\x08"),
    (b"vpAg", bytes(9)),
    (b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
)


def _chunk_cases() -> Cases:
    """Chunks that change nothing, sound and with a wrong checksum, before the samples and after."""
    plain = _of("RGB 8", colours(), 8, _RGB, picture(colours()))
    samples, end = chunk(b"IDAT", body(plain)), chunk(b"IEND", b"")
    for (name, value), is_sound, is_after in itertools.product(_PLAIN_CHUNKS, (True, False), (False, True)):
        extra = chunk(name, value, is_sound=is_sound)
        data = head(plain) + (samples + extra if is_after else extra + samples) + end
        way = f"{name.decode()} {'after' if is_after else 'before'} the samples"
        kind = "RGB 8 with a chunk" if is_sound else "RGB 8 with a wrong checksum of a chunk"
        yield _case(replace(plain, name=kind), way, data)
    broken = head(plain) + chunk(b"IDAT", body(plain), is_sound=False) + end
    yield _case(replace(plain, name="RGB 8 with a wrong checksum of the samples"), "plain", broken)
    light = linear(muted())
    gamma = (b"gAMA", struct.pack(">I", 100000))
    for bits in (8, 16):
        kind = _of(f"RGB {bits} with linear light by gAMA", light, bits, _RGB, picture(muted()), gamma)
        case = _case(kind, "plain", written(kind))
        yield replace(case, decoders=(), step=2)  # libvips ignores gAMA, browsers do not


def _oriented_cases() -> Cases:
    for orientation, is_after in itertools.product(range(1, 9), (False, True)):
        kind = _of("RGB 8 with an orientation", laid(colours(), orientation), 8, _RGB, picture(colours()))
        entry = struct.pack(">HHHIHH", 1, 274, 3, 1, orientation, 0)
        exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08" + entry + bytes(4))
        samples = chunk(b"IDAT", body(kind))
        data = head(kind) + (samples + exif if is_after else exif + samples) + chunk(b"IEND", b"")
        yield _case(kind, f"{orientation} {'after' if is_after else 'before'} the samples", data)


def _animated_cases() -> Cases:
    """Two frames; the default picture is the first of them, or hidden (PNG third edition, section 4.9)."""
    for bits, (colour, values) in itertools.product((8, 16), ((_RGB, colours()), (_GREY, grey()))):
        kind = _of(f"animation {bits}", values, bits, colour, picture(values))
        seen, other = body(kind), body(replace(kind, samples=kind.samples[::-1]))
        start = head(kind) + chunk(b"acTL", struct.pack(">II", 2, 0))
        end = chunk(b"IEND", b"")
        first = _control(0) + chunk(b"IDAT", seen)
        yield _case(kind, f"colour type {colour}", start + first + _frame(1, other) + end)
        hidden = replace(kind, name=f"{kind.name} with a hidden default")
        frames = chunk(b"IDAT", other) + _frame(0, seen) + _frame(2, other)
        yield _case(hidden, f"colour type {colour}", start + frames + end)


def _control(number: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *ODD, 0, 0, 1, 10, 0, 0))


def _frame(number: int, data: bytes) -> bytes:
    return _control(number) + chunk(b"fdAT", struct.pack(">I", number + 1) + data)
