"""Brings a picture in any plain mode and colour space to sRGB, on white."""

from PIL import Image

from vlmbatch.imaging.colours.cicp import Cicp
from vlmbatch.imaging.colours.plain import on_white, to_srgb
from vlmbatch.imaging.colours.space import ColourSpace
from vlmbatch.imaging.colours.tone_mapping import to_sdr
from vlmbatch.imaging.colours.transparency import check_visible


def in_srgb(image: Image.Image, space: ColourSpace, frames: int, warnings: list[str]) -> Image.Image:
    """The picture as RGB or YCbCr in sRGB; `frames` is the number of frames of its file."""
    if isinstance(space, Cicp):
        image, space = to_sdr(image, space, warnings), None
    image = to_srgb(image, space, warnings)
    opaque = on_white(image)
    check_visible(image, opaque, frames, warnings)
    return opaque
