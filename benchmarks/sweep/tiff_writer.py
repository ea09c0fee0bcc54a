"""Writes TIFF files in every layout, from TIFF 6.0, BigTIFF and the tags of libtiff."""

import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

Samples = NDArray[Any]
"""(height, width, channels), of the type that the file declares."""
Values = str | tuple[int, ...]
_ROWS, _TILE = 64, (64, 48)
"""Rows of a strip, and width and height of a tile."""
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_FORMATS = {"u": 1, "i": 2, "f": 3}

BILEVEL = {"CCITT RLE": (2, "tiff_ccitt"), "CCITT G3": (3, "group3"), "CCITT G4": (4, "group4")}
NUMBERS = {
    "none": 1,
    "LZW": 5,
    "JPEG": 7,
    "Adobe Deflate": 8,
    "PackBits": 32773,
    "Deflate": 32946,
    "LZMA": 34925,
    "ZSTD": 50000,
    "WebP": 50001,
} | {name: number for name, (number, _) in BILEVEL.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the samples lie in the file."""

    order: str = "<"
    big: bool = False
    planar: bool = False
    tiled: bool = False
    compression: str = "none"
    predictor: int = 1
    fill_order: int = 1

    def __str__(self) -> str:
        parts = [
            "II" if self.order == "<" else "MM",
            "BigTIFF" if self.big else "",
            "planar" if self.planar else "",
            "tiles" if self.tiled else "",
            self.compression,
            f"predictor {self.predictor}" if self.predictor > 1 else "",
            "fill order 2" if self.fill_order == 2 else "",
        ]
        return ", ".join(filter(None, parts))


def written(samples: Samples, bits: int, tags: dict[int, tuple[int, ...]], layout: Layout) -> bytes:
    """A TIFF of these samples; `tags` has the photometric interpretation and whatever else a kind needs."""
    height, width, _ = samples.shape
    chunks = [_coded(chunk, bits, tags, layout) for chunk in _chunks(samples, layout)]
    return assembled(chunks, (width, height), tags | _layout_tags(samples, bits, layout), layout)


def _layout_tags(samples: Samples, bits: int, layout: Layout) -> dict[int, tuple[int, ...]]:
    channels = samples.shape[2]
    tags = {
        258: (bits,) * channels,
        277: (channels,),
        284: (1 + layout.planar,),
        339: (_FORMATS[samples.dtype.kind],) * channels,
    }
    return tags | ({317: (layout.predictor,)} if layout.predictor > 1 else {})


def assembled(
    chunks: list[bytes], size: tuple[int, int], tags: dict[int, tuple[int, ...]], layout: Layout
) -> bytes:
    """The file around coded strips or tiles."""
    width, height = size
    order, offset = layout.order, 16 if layout.big else 4
    starts = tuple(np.cumsum([16 if layout.big else 8, *map(len, chunks)]).tolist()[:-1])
    counts = tuple(map(len, chunks))
    tags = tags | {256: (width,), 257: (height,), 259: (NUMBERS[layout.compression],)}
    if layout.fill_order == 2:
        tags[266] = (2,)
    if layout.tiled:
        tags |= {322: (_TILE[0],), 323: (_TILE[1],), 324: starts, 325: counts}
    else:
        tags |= {273: starts, 278: (_ROWS,), 279: counts}
    data = b"".join(chunks)
    end = (16 if layout.big else 8) + len(data)
    end += end % 2
    directory = _directory(tags, end, order, offset)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, end) if layout.big else struct.pack(f"{order}HI", 42, end)
    return (mark + head + data).ljust(end, b"\0") + directory


def _directory(tags: dict[int, tuple[int, ...]], at: int, order: str, offset: int) -> bytes:
    wide = offset == 16
    entry, room = ("HHQ", 8) if wide else ("HHI", 4)
    after = at + (8 if wide else 2) + len(tags) * (20 if wide else 12) + room
    table, values = b"", b""
    for number, numbers in sorted(tags.items()):
        kind = offset if number in (273, 279, 324, 325) else 3 if max(numbers) < 65536 else 4
        kind = 1 if number in _OF_BYTES else kind
        field = struct.pack(f"{order}{len(numbers)}{_TYPES[kind]}", *numbers)
        if len(field) > room:
            place = struct.pack(f"{order}{'Q' if wide else 'I'}", after + len(values))
            values += field + b"\0" * (len(field) % 2)
            field = place
        table += struct.pack(f"{order}{entry}", number, kind, len(numbers)) + field.ljust(room, b"\0")
    count = struct.pack(f"{order}{'Q' if wide else 'H'}", len(tags))
    return count + table + b"\0" * room + values


_OF_BYTES = (34675,)


def _chunks(samples: Samples, layout: Layout) -> Iterator[Samples]:
    planes = np.split(samples, samples.shape[2], axis=2) if layout.planar else [samples]
    for plane in planes:
        height, width, _ = plane.shape
        if not layout.tiled:
            yield from (plane[top : top + _ROWS] for top in range(0, height, _ROWS))
            continue
        wide, high = _TILE
        padded = np.pad(plane, ((0, -height % high), (0, -width % wide), (0, 0)), mode="edge")
        for top in range(0, height, high):
            yield from (padded[top : top + high, left : left + wide] for left in range(0, width, wide))


def _coded(chunk: Samples, bits: int, tags: dict[int, tuple[int, ...]], layout: Layout) -> bytes:
    if layout.compression in BILEVEL:
        data = _bilevel(chunk, BILEVEL[layout.compression][1])
    elif layout.compression in ("JPEG", "WebP"):
        data = _picture(chunk, tags[262][0], layout.compression)
    else:
        rows = _rows(_predicted(chunk, layout.predictor), bits, layout)
        data = COMPRESSIONS[layout.compression](rows)
    return bytes(data).translate(_REVERSED) if layout.fill_order == 2 else bytes(data)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _picture(chunk: Samples, photometric: int, compression: str) -> bytes:
    chunk = np.ascontiguousarray(chunk[..., 0] if chunk.shape[2] == 1 else chunk)
    if compression == "WebP":
        return imagecodecs.webp_encode(chunk, lossless=True)
    if photometric == 6:
        return imagecodecs.jpeg8_encode(chunk, 95, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
    return imagecodecs.jpeg8_encode(chunk, 95, **({} if chunk.ndim == 2 else _AS_THEY_ARE[chunk.shape[2]]))


_AS_THEY_ARE = {
    3: {"colorspace": "RGB", "outcolorspace": "RGB"},
    4: {"colorspace": "CMYK", "outcolorspace": "CMYK"},
}


def _bilevel(chunk: Samples, compression: str) -> bytes:
    """The coded data of a 1-bit picture, cut from a file of libtiff, which codes ones as black runs."""
    image = Image.fromarray(chunk[..., 0] == 1)
    out = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[278] = image.height
    image.save(out, "TIFF", compression=compression, tiffinfo=tags)
    with Image.open(out) as saved:
        assert isinstance(saved, TiffImagePlugin.TiffImageFile)
        [start], [count] = saved.tag_v2[273], saved.tag_v2[279]
    return out.getvalue()[start : start + count]


def _predicted(chunk: Samples, predictor: int) -> Samples:
    """Differences of neighbours in a row (TIFF 6.0 section 14), or of the bytes of floats (Note 3)."""
    if predictor == 2:
        whole = chunk.view(f"u{chunk.dtype.itemsize}")
        return np.diff(whole, axis=1, prepend=whole[:, :1] * 0)
    if predictor == 3:
        height, width, channels = chunk.shape
        size = chunk.dtype.itemsize
        big = np.ascontiguousarray(chunk).astype(chunk.dtype.newbyteorder(">")).view(np.uint8)
        planes = big.reshape(height, width * channels, size).transpose(0, 2, 1).reshape(height, -1)
        planes = planes.copy()
        planes[:, channels:] -= planes[:, :-channels].copy()
        return planes[..., None]
    return chunk


def _rows(chunk: Samples, bits: int, layout: Layout) -> list[bytes]:
    flat = np.ascontiguousarray(chunk).reshape(len(chunk), -1)
    if layout.predictor == 3 or bits in (8, 16, 32, 64):
        flat = flat.astype(flat.dtype.newbyteorder(layout.order))
    else:
        shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
        flat = np.packbits((flat[..., None] >> shifts & 1).astype(np.uint8).reshape(len(flat), -1), axis=1)
    return [row.tobytes() for row in flat]


COMPRESSIONS: dict[str, Callable[[list[bytes]], bytes]] = {
    "none": b"".join,
    "LZW": lambda rows: imagecodecs.lzw_encode(b"".join(rows)),
    "Deflate": lambda rows: zlib.compress(b"".join(rows)),
    "Adobe Deflate": lambda rows: zlib.compress(b"".join(rows)),
    "PackBits": lambda rows: b"".join(bytes(imagecodecs.packbits_encode(row)) for row in rows),
    "LZMA": lambda rows: lzma.compress(b"".join(rows), preset=1),
    "ZSTD": lambda rows: imagecodecs.zstd_encode(b"".join(rows)),
}
