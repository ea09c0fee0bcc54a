"""Corrects how Pillow 13 reads the header of a TIFF, before it decodes a pixel.

Each correction is for a kind of file that Pillow would decode to a wrong picture without an error. A sweep
over synthesised files found them (docs/decisions.md).
"""

import math

from PIL import ImagePalette, TiffImagePlugin
from PIL.TiffImagePlugin import (
    COLORMAP,
    COMPRESSION,
    FILLORDER,
    IMAGELENGTH,
    IMAGEWIDTH,
    PLANAR_CONFIGURATION,
    ROWSPERSTRIP,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPOFFSETS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
)

from vlmbatch.errors import ImageError
from vlmbatch.imaging.tiff.layout import PLANAR

_PACKBITS = 32773
_OLD_JPEG = "tiff_jpeg"  # its data may lie elsewhere
_MIRRORED = 2  # of FillOrder: the first pixel is in the lowest bit
_SIGNED = 2
_SMALLEST_OF_16_BITS = 256

_NATIVE = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
    "F;32": "F;32N",
}
"""Pillow's names of samples in the order of the file, and in that of the machine, which libtiff returns."""


def correct(image: TiffImagePlugin.TiffImageFile) -> None:
    """Make an opened TIFF decode to the picture that its file describes."""
    if image.info.get("compression") == "raw" and _only_libtiff_can_unpack(image):
        _decode_with_libtiff(image)
    rawmode = next((str(tile.args[0]) for tile in image.tile if isinstance(tile.args, tuple)), "")
    if rawmode == "I;32N":  # unsigned, but Pillow's integers are signed
        _decode_as(image, "F", "F;32")
    elif rawmode == "L" and image.tag_v2.get(SAMPLEFORMAT, (1,))[0] == _SIGNED:
        _decode_as(image, "I", "I;8S")
    else:
        _decode_as(image, image.mode, rawmode)
    if image.mode in ("P", "PA"):
        _correct_palette(image)


def check_complete(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse an opened TIFF that lists fewer strips or tiles than it has rows; the others would be black.

    Raises:
        ImageError: bad_image.
    """
    tags = image.tag_v2
    width, height = tags[IMAGEWIDTH], tags[IMAGELENGTH]
    if TILEOFFSETS in tags:
        offsets, across, down = tags[TILEOFFSETS], tags.get(TILEWIDTH, width), tags.get(TILELENGTH, height)
    else:
        offsets, across, down = tags.get(STRIPOFFSETS, ()), width, tags.get(ROWSPERSTRIP, height)
    planes = int(tags.get(SAMPLESPERPIXEL, 1)) if is_planar(image) else 1
    needed = math.ceil(width / max(across, 1)) * math.ceil(height / max(down, 1)) * planes
    if len(offsets) < needed and image.info.get("compression") != _OLD_JPEG:
        raise ImageError("the TIFF is truncated: some of its strips or tiles are missing; get a whole copy")


def is_planar(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether each channel is stored apart."""
    return bool(image.tag_v2.get(PLANAR_CONFIGURATION) == PLANAR)


def _only_libtiff_can_unpack(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow itself fails at such samples: planes of 16 bits, subsampled colour, mirrored bits."""
    return is_planar(image) or image.mode == "YCbCr" or image.tag_v2.get(FILLORDER) == _MIRRORED


def _decode_with_libtiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Let libtiff read uncompressed samples.

    The compression counts for nothing else; libtiff reads the one in the file.
    """
    image.tag_v2[COMPRESSION] = _PACKBITS
    image._setup()


def _decode_as(image: TiffImagePlugin.TiffImageFile, mode: str, rawmode: str) -> None:
    """Decode to this mode from samples of this kind, given in the byte order of the file."""
    image._mode = mode
    if image.use_load_libtiff:
        rawmode = _NATIVE.get(rawmode, rawmode)
    image.tile = [tile._replace(args=(rawmode, *tuple(tile.args or ())[1:])) for tile in image.tile]


def _correct_palette(image: TiffImagePlugin.TiffImageFile) -> None:
    """Use a colour map of 8 bits as it is: old writers forgot to scale it to 16 (TIFF 6.0 section 5)."""
    colours = image.tag_v2.get(COLORMAP, ())
    if max(colours, default=_SMALLEST_OF_16_BITS) < _SMALLEST_OF_16_BITS:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
