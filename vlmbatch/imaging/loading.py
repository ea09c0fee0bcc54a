"""Decodes an opened file, and corrects what Pillow alone gets wrong."""

from PIL import Image, ImageFile

from vlmbatch.imaging.colours.dark import brightened, lower_bytes
from vlmbatch.imaging.colours.key import fit_key
from vlmbatch.imaging.png.animation import first_frame
from vlmbatch.imaging.tiff.pixels import TiffPixels


def loaded(image: ImageFile.ImageFile, data: bytes, warnings: list[str]) -> Image.Image:
    """The first picture of an opened file, decoded; `data` are the bytes of the file."""
    lower = lower_bytes(image)
    picture = first_frame(image)
    if isinstance(image, TiffPixels):
        warnings += image.warnings
    fit_key(picture, data, warnings)
    return brightened(picture, data, lower, warnings)
