"""Decodes an opened file, and corrects what Pillow alone gets wrong."""

from PIL import Image, ImageFile

from vlmbatch.imaging.colours.transparent_colour import fit_transparent_colour
from vlmbatch.imaging.colours.twelve_bits import brightened, lower_bytes
from vlmbatch.imaging.png.animation import first_frame
from vlmbatch.imaging.tiff.pixels import TifffileImage


def loaded(image: ImageFile.ImageFile, data: bytes, warnings: list[str]) -> Image.Image:
    """The first picture of an opened file, decoded; `data` are the bytes of the file."""
    lower = lower_bytes(image)
    picture = first_frame(image)
    if isinstance(image, TifffileImage):
        warnings += image.warnings
    fit_transparent_colour(picture, data, warnings)
    return brightened(picture, data, lower, warnings)
