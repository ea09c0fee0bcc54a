"""AVIF files: depth, subsampling, range, colours by nclx, rotation, alpha."""

import io
import itertools
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from sweep.case import Case, Cases, Decoder
from sweep.light import BT709, BT2020, HLG, LINEAR, P3, PQ, SRGB, coded, seen
from sweep.pictures import EVEN, ODD, Picture, colours, grey, laid, levels, muted, opacity, picture
from sweep.seconds import of_samples, vips

_LEVEL, _SPEED = 97, 10
_BT601, _BT2020_MATRIX = 6, 9
"""Matrix coefficients (ITU-T H.273 table 4)."""
_SPACES = {
    "sRGB": (BT709, SRGB, _BT601),
    "Display P3": (P3, SRGB, _BT601),
    "BT.2020 with the curve of sRGB": (BT2020, SRGB, _BT2020_MATRIX),
    "BT.2020 PQ": (BT2020, PQ, _BT2020_MATRIX),
    "BT.2020 HLG": (BT2020, HLG, _BT2020_MATRIX),
    "BT.709 PQ": (BT709, PQ, _BT601),
    "P3 PQ": (P3, PQ, _BT601),
    "BT.709 with linear light": (BT709, LINEAR, _BT601),
}


def cases() -> Cases:
    """Each file."""
    yield from _deep_cases()
    yield from _pillow_cases()
    yield from _oriented_cases()


def _case(name: str, data: bytes, truth: Picture, *decoders: Decoder) -> Case:
    return Case(format="AVIF", name=name, data=data, truth=truth, decoders=decoders or (vips, raw(8)))


def raw(bits: int, primaries: int = BT709, transfer: int = SRGB) -> Decoder:
    """The decoder of imagecodecs, which leaves the colours as they are, and then the maths of the colours."""

    def imagecodecs_avif(data: bytes) -> Picture:
        samples = imagecodecs.avif_decode(data)
        if samples.ndim == 2 or samples.shape[2] != 3 or (primaries, transfer) == (BT709, SRGB):
            return of_samples(samples, 2**bits - 1)
        return seen(samples / (2**bits - 1), primaries, transfer)

    return imagecodecs_avif


def _deep_cases() -> Cases:
    """Each depth, subsampling and size in sRGB; each space at each depth; alpha, and grey, at each depth."""
    for bits, chroma, size in itertools.product((8, 10, 12), ("444", "422", "420"), (EVEN, ODD)):
        data = _encoded(colours(size), bits, chroma, "sRGB")
        yield _case(
            f"sRGB {bits}, {chroma}, {size[0]}x{size[1]}", data, picture(colours(size)), vips, raw(bits)
        )
    for bits, space, chroma in itertools.product((8, 10, 12), _SPACES, ("444", "420")):
        primaries, transfer, _ = _SPACES[space]
        if (space == "sRGB") or (bits == 8 and transfer in (PQ, LINEAR)):
            continue
        data = _encoded(coded(muted(), primaries, transfer), bits, chroma, space)
        case = _case(f"{space} {bits}, {chroma}", data, picture(muted()), raw(bits, primaries, transfer))
        yield replace(case, step=2)
    for bits in (8, 10, 12):
        mixed = np.dstack((colours(), opacity()))
        yield _case(
            f"RGBA {bits}",
            _encoded(mixed, bits, "444", "sRGB"),
            picture(colours(), opacity()),
            vips,
            raw(bits),
        )
        yield _case(f"grey {bits}", _encoded(grey(), bits, "400", "sRGB"), picture(grey()), vips, raw(bits))


def _encoded(values: Any, bits: int, chroma: str, space: str) -> bytes:
    primaries, transfer, matrix = _SPACES[space]
    return bytes(
        imagecodecs.avif_encode(
            levels(values, bits).astype(np.uint8 if bits == 8 else np.uint16),
            _LEVEL,
            speed=_SPEED,
            bitspersample=bits,
            pixelformat=chroma,
            primaries=primaries,
            transfer=transfer,
            matrix=matrix,
            numthreads=1,
        )
    )


def saved(image: Image.Image, **options: Any) -> bytes:
    """An AVIF by libavif through Pillow."""
    out = io.BytesIO()
    image.save(out, "AVIF", quality=_LEVEL, speed=_SPEED, max_threads=1, **options)
    return out.getvalue()


def _pillow_cases() -> Cases:
    """Both ranges of values, and an animation."""
    image = Image.fromarray(picture(colours()))
    for full, chroma in itertools.product(("full", "limited"), ("4:4:4", "4:2:2", "4:2:0")):
        data = saved(image, range=full, subsampling=chroma)
        yield _case(f"{full} range, {chroma}", data, picture(colours()))
    shade = Image.fromarray(np.rint(grey() * 255).astype(np.uint8))
    for full in ("full", "limited"):
        yield _case(f"{full} range, 4:0:0", saved(shade, range=full, subsampling="4:0:0"), picture(grey()))
    turned = Image.fromarray(picture(colours())[::-1])
    animation = saved(image, save_all=True, append_images=[turned], subsampling="4:4:4")
    yield _case("animation, 4:4:4", animation, picture(colours()), vips)


def _oriented_cases() -> Cases:
    """Rotation and mirroring by irot and imir, which Pillow writes for an EXIF orientation."""
    for orientation, size in itertools.product(range(1, 9), (EVEN, ODD)):
        image = Image.fromarray(laid(picture(colours(size)), orientation))
        exif = Image.Exif()
        exif[274] = orientation
        data = saved(image, exif=exif.tobytes(), subsampling="4:4:4")
        yield _case(
            f"irot and imir for orientation {orientation}, {size[0]}x{size[1]}",
            data,
            picture(colours(size)),
            vips,
        )
