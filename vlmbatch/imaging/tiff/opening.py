"""Opens a TIFF with the decoder that is right for its kind."""

from io import BytesIO
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION, SAMPLESPERPIXEL, TiffImageFile

from vlmbatch.imaging.tiff import corrections
from vlmbatch.imaging.tiff.layout import WEBP
from vlmbatch.imaging.tiff.pixels import TifffileImage
from vlmbatch.imaging.tiff.rewrite import single_page

BIG_AND_BIG_ENDIAN = b"MM\x00+"
"""The first bytes of a BigTIFF that Pillow does not recognise."""
_RIGHT_IN_PLANES = frozenset(("1", "L", "P", "I;16", "I;16B", "I", "F", "RGB", "RGBA", "CMYK", "YCbCr"))
"""The modes that Pillow decodes right from planes; in the others it takes one plane for all channels."""


def open_tiff(source: BinaryIO) -> ImageFile.ImageFile:
    """Open with Pillow, which is right for most files and refuses most others; else with tifffile.

    Raises:
        ImageError: no decoder knows this kind of picture, or the extra `tiff` is missing.
    """
    source.seek(0)
    if source.read(4) == BIG_AND_BIG_ENDIAN:
        source.seek(0)
        source = BytesIO(single_page(source.read()))
    try:
        image = Image.open(source, formats=("TIFF",))
    except (UnidentifiedImageError, KeyError):
        return _opened_with_tifffile(source)
    if not isinstance(image, TiffImageFile) or _is_wrong(image):
        return _opened_with_tifffile(source)
    corrections.check_complete(image)
    corrections.correct(image)
    return image


def _opened_with_tifffile(source: BinaryIO) -> ImageFile.ImageFile:
    try:
        return TifffileImage(source)
    except SyntaxError as error:  # Pillow's exception for a header that is no such picture
        raise UnidentifiedImageError from error


def _is_wrong(image: TiffImageFile) -> bool:
    """Whether Pillow would fail to decode these samples, or decode them to another picture."""
    if image.tag_v2.get(COMPRESSION) == WEBP:
        return True
    samples = int(image.tag_v2.get(SAMPLESPERPIXEL, 1))
    too_many = image.mode == "RGBA" and samples > len(image.getbands())
    return corrections.is_planar(image) and (image.mode not in _RIGHT_IN_PLANES or too_many)
