"""The image formats and accelerators of this installation, and a drawn test picture."""

import io
from dataclasses import dataclass

import PIL
from PIL import Image, ImageDraw, features

from vlmbatch.imaging.decode import has_heif
from vlmbatch.imaging.resize import has_simd
from vlmbatch.imaging.tiff.pixels import has_tifffile

_SIDES = (1280, 960)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The version of Pillow, the optional formats, and whether resizing is accelerated.

    `tiff`: also the kinds that Pillow does not know, such as those of instruments.
    """

    pillow: str
    avif: bool
    heic: bool
    tiff: bool
    fast: bool


def support() -> Support:
    """Check what is installed."""
    return Support(
        pillow=PIL.__version__,
        avif=bool(features.check("avif")),
        heic=has_heif(),
        tiff=has_tifffile(),
        fast=has_simd(),
    )


def drawn_shapes() -> bytes:
    """A PNG of 1280x960 pixels with a red circle, a blue square and a green triangle on white."""
    picture = Image.new("RGB", _SIDES, "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((120, 300, 440, 620), fill="red")
    draw.rectangle((500, 320, 780, 600), fill="blue")
    draw.polygon(((1000, 300), (840, 620), (1160, 620)), fill="green")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
