"""JPEG files: each coding, subsampling and colour, turned by EXIF, and with a lost second half."""

import io
import itertools
import shutil
import struct
import subprocess
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweep.case import Case, Cases
from sweep.pictures import EVEN, ODD, Picture, colours, grey, laid, picture
from sweep.seconds import codec, vips

_QUALITY = 95
_SUBSAMPLINGS = ("444", "422", "420", "440", "411")
_WAYS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restart intervals": {"restart_marker_blocks": 5},
    "progressive with restart intervals": {"progressive": True, "restart_marker_rows": 1},
}


def cases() -> Cases:
    """Each file."""
    yield from _coded_cases()
    yield from _subsampled_cases()
    yield from _ink_cases()
    yield from _oriented_cases()
    yield from _damaged_cases()
    yield from _rare_cases()


def _case(name: str, data: bytes, truth: Picture) -> Case:
    return Case(format="JPEG", name=name, data=data, truth=truth, decoders=(vips, codec("jpeg8")))


def _pixels(size: tuple[int, int] = ODD) -> NDArray[np.uint8]:
    return picture(colours(size))


def saved(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    """A JPEG by libjpeg-turbo through Pillow."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **{"quality": _QUALITY, "subsampling": "4:4:4"} | options)
    return out.getvalue()


def _coded_cases() -> Cases:
    """Each coding of YCbCr, RGB and grey, small and large enough to be decoded at all."""
    greys = np.rint(grey() * 255).astype(np.uint8)
    for (way, options), size in itertools.product(_WAYS.items(), (EVEN, ODD)):
        shown = f"{way}, {size[0]}x{size[1]}"
        yield _case(f"YCbCr 4:4:4, {shown}", saved(_pixels(size), **options), picture(colours(size)))
        rgb = saved(_pixels(size), keep_rgb=True, **options)
        yield _case(f"RGB without a transform, {shown}", rgb, picture(colours(size)))
    for way, options in _WAYS.items():
        yield _case(f"grey, {way}", saved(greys, **options), picture(grey()))


def _subsampled_cases() -> Cases:
    for subsampling, optimize, size in itertools.product(_SUBSAMPLINGS, (False, True), (EVEN, ODD)):
        data = imagecodecs.jpeg8_encode(_pixels(size), _QUALITY, subsampling=subsampling, optimize=optimize)
        name = f"YCbCr {':'.join(subsampling)}, {'optimised, ' if optimize else ''}{size[0]}x{size[1]}"
        yield _case(name, data, picture(colours(size)))
    for subsampling, way in itertools.product(("4:2:2", "4:2:0"), ("progressive", "restart intervals")):
        data = saved(_pixels(), subsampling=subsampling, **_WAYS[way])
        yield _case(f"YCbCr {subsampling}, {way}", data, picture(colours()))


def _ink_cases() -> Cases:
    """CMYK and YCCK, as Adobe's programs write them: inverted, with their mark in an APP14 segment."""
    rgb = 0.15 + 0.7 * colours()  # the encoder halves the chroma of YCCK, which blurs strong colours
    light = rgb.max(axis=2)
    inverted = np.rint(np.dstack((rgb / light[..., None], light)) * 255).astype(np.uint8)
    for space in ("CMYK", "YCCK"):
        data = imagecodecs.jpeg8_encode(inverted, 100, colorspace="CMYK", outcolorspace=space)
        yield replace(_case(f"{space} with Adobe's mark", data, picture(rgb)), decoders=(inks,))


def inks(data: bytes) -> Picture:
    """Inverted inks by imagecodecs: what white light leaves through each of the inks."""
    samples = imagecodecs.jpeg8_decode(data, outcolorspace="CMYK") / 255
    return picture(samples[..., :3] * samples[..., 3:])


def _oriented_cases() -> Cases:
    for orientation, progressive in itertools.product(range(1, 9), (False, True)):
        pixels = laid(_pixels(), orientation)
        for order in "<>":
            mark = b"II" if order == "<" else b"MM"
            entry = struct.pack(f"{order}HHHIHHI", 1, 274, 3, 1, orientation, 0, 0)
            exif = b"Exif\0\0" + mark + struct.pack(f"{order}HI", 42, 8) + entry
            data = saved(pixels, progressive=progressive, exif=exif)
            way = f"{mark.decode()}, {'progressive' if progressive else 'baseline'}"
            yield _case(f"EXIF orientation {orientation}, {way}", data, picture(colours()))


def _damaged_cases() -> Cases:
    """The last part of the coded data is lost: zeros or the bytes of erased memory instead, or nothing.

    No decoder can confirm the picture that was there.
    """
    parts = {EVEN: (0.3, 0.5, 0.9), (1280, 960): (0.5,)}
    for size, (way, options) in itertools.product(parts, _WAYS.items()):
        data = saved(_pixels(size), **options)
        for part in parts[size]:
            cut = int(len(data) * part)
            name = f"{way}, {size[0]}x{size[1]}, from {part:.0%} on"
            for filler in (b"\0", b"\xff"):
                fill = filler * (len(data) - 2 - cut)
                damaged = data[:cut] + fill + data[-2:]
                yield replace(
                    _case(f"damaged with {filler.hex()}, {name}", damaged, picture(colours(size))),
                    decoders=(),
                )
            yield replace(_case(f"cut, {name}", data[:cut], picture(colours(size))), decoders=())


def _rare_cases() -> Cases:
    """Rare codings of ITU-T T.81: 12 bits, lossless, and arithmetic by cjpeg, where there is one."""
    twelve = np.rint(colours() * 4095).astype(np.uint16)
    yield _case("12 bits", imagecodecs.jpeg8_encode(twelve, _QUALITY, bitspersample=12), picture(colours()))
    for predictor in (1, 4, 7):
        data = imagecodecs.jpeg8_encode(_pixels(), lossless=True, predictor=predictor)
        yield _case(f"lossless, predictor {predictor}", data, picture(colours()))
    if shutil.which("cjpeg"):
        width, height = ODD
        pixels = f"P6 {width} {height} 255\n".encode() + _pixels().tobytes()
        for way in ((), ("-progressive",)):
            command = ["cjpeg", "-arithmetic", "-quality", str(_QUALITY), *way]
            data = subprocess.run(command, input=pixels, capture_output=True, check=True).stdout
            yield _case(f"arithmetic, {way[0][1:] if way else 'sequential'}", data, picture(colours()))
