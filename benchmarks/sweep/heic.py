"""HEIC files: depth, subsampling, alpha, grey, rotation, colours by nclx.

pillow_heif writes and reads them. libvips and imagecodecs come without HEVC, so that none is confirmed.
"""

import io
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from sweep.case import Case, Cases
from sweep.light import BT709, BT2020, HLG, P3, PQ, SRGB, coded
from sweep.pictures import EVEN, ODD, Picture, Values, colours, grey, laid, levels, muted, opacity, picture

_QUALITY = 95
_SPACES = {
    "Display P3": (P3, SRGB),
    "BT.2020 PQ": (BT2020, PQ),
    "BT.2020 HLG": (BT2020, HLG),
    "BT.709 PQ": (BT709, PQ),
}
_BT601, _BT2020_MATRIX = 6, 9


def cases() -> Cases:
    """Each file."""
    for bits, chroma, size in itertools.product((8, 10, 12), ("444", "422", "420"), (EVEN, ODD)):
        data = _encoded(colours(size), bits, chroma=chroma)
        yield _case(f"RGB {bits}, {chroma}, {size[0]}x{size[1]}", data, picture(colours(size)))
    for bits in (8, 10, 12):
        mixed = np.dstack((colours(), opacity()))
        yield _case(f"RGBA {bits}, 444", _encoded(mixed, bits, chroma="444"), picture(colours(), opacity()))
        yield _case(f"grey {bits}, 400", _encoded(grey(), bits), picture(grey()))
    for (space, (primaries, transfer)), bits in itertools.product(_SPACES.items(), (10, 12)):
        data = _encoded(
            coded(muted(), primaries, transfer),
            bits,
            chroma="444",
            color_primaries=primaries,
            transfer_characteristics=transfer,
            matrix_coefficients=_BT2020_MATRIX if primaries == BT2020 else _BT601,
        )
        yield replace(_case(f"{space} {bits}, 444", data, picture(muted())), step=2)
    for full in (0, 1):
        data = _encoded(colours(), 8, chroma="444", full_range_flag=full)
        yield _case(f"{'full' if full else 'limited'} range, 444", data, picture(colours()))
    yield from _oriented_cases()


def _case(name: str, data: bytes, truth: Picture) -> Case:
    return Case(format="HEIC", name=name, data=data, truth=truth, decoders=())


def _encoded(values: Values, bits: int, **options: Any) -> bytes:
    height, width = values.shape[:2]
    mode = "L" if values.ndim == 2 else "RGBA" if values.shape[2] == 4 else "RGB"
    if bits == 8:
        samples = levels(values, 8).astype(np.uint8)
    else:  # pillow_heif takes samples of 16 bits, and keeps the upper ones
        mode, samples = f"{mode};16", levels(values, 16).astype(np.uint16)
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    out = io.BytesIO()
    pillow_heif.from_bytes(mode, (width, height), samples.tobytes()).save(out, quality=_QUALITY, **options)
    return out.getvalue()


def _oriented_cases() -> Cases:
    pillow_heif.register_heif_opener()
    for orientation in range(1, 9):
        image = Image.fromarray(laid(picture(colours()), orientation))
        exif = Image.Exif()
        exif[274] = orientation
        out = io.BytesIO()
        image.save(out, "HEIF", quality=_QUALITY, exif=exif.tobytes(), chroma="444")
        yield _case(f"irot and imir for orientation {orientation}, 444", out.getvalue(), picture(colours()))
