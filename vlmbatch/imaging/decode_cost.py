"""Estimates, before a pixel is decoded, the memory to decode a picture and to resize it.

The factors hold for Pillow 13; benchmarks/decode_memory.py measures them.
"""

from PIL import ExifTags, ImageFile, TiffImagePlugin

from vlmbatch.imaging.colours.twelve_bits import lower_bytes
from vlmbatch.imaging.geometry import padded_size
from vlmbatch.imaging.jpeg.structure import JpegStructure
from vlmbatch.imaging.png.animation import has_still
from vlmbatch.imaging.tiff.pixels import TifffileImage

_CHANNEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "LA": 4, "PA": 4}
"""Bytes that Pillow stores for a pixel; four for every other mode."""
_TO_PLAIN = {"RGB": 0, "L": 0, "1": 1, "P": 4, "CMYK": 4, "YCbCr": 4}
"""More bytes a pixel for the conversion to a plain mode; twelve, for more copies, for all other modes."""
_LEAST_SHARE = 0.46
"""Least share of the decoded pixels that is held half-way through resizing, also after a box filter."""
_DECODER = {"WEBP": 12, "AVIF": 9, "HEIF": 12}
"""Bytes that the decoder itself holds for each pixel of the file."""
_DARK = 16  # bytes a pixel to decode colours of 16 bits again, in case they are dark
_COEFFICIENT = 2  # bytes, of a JPEG with several scans (libjpeg's JCOEF)
_STILL_COPIES = 3  # of an animated PNG: Pillow's for blending, and a canvas for a smaller frame
_ROWS = 16  # bytes for each column: two rows of the file, at most 64 bits a pixel
_SMALL = 8  # bytes a pixel of the picture as sent: rotated, with its profile applied, and encoded
_FIXED = 1_000_000


def decode_bytes(
    image: ImageFile.ImageFile,
    full: tuple[int, int],
    target: tuple[int, int],
    structure: JpegStructure | None = None,
) -> int:
    """Bytes at the peak of decoding `image`, whose file has `full` pixels, and resizing it to `target`.

    `image` is opened and drafted, so that a JPEG already has the size at which it will be decoded;
    `structure` is given for a JPEG. An upper bound of the figures from benchmarks/decode_memory.py.
    """
    in_file, decoded = full[0] * full[1], image.width * image.height
    mode = image.mode
    to_plain = 12 if image.has_transparency_data else _TO_PLAIN.get(mode, 12)
    share = max(target[0] / max(image.width, 1), _LEAST_SHARE)  # above 1 if pixels become square
    channels = _CHANNEL_BYTES.get(mode, 4)
    held = in_file * _DECODER.get(image.format or "", 0) + full[0] * _ROWS
    if structure is not None and (structure.scans > 1 or image.info.get("progressive")):
        held += in_file * _COEFFICIENT * len(image.getbands())
    if lower_bytes(image):
        held += decoded * _DARK
    if isinstance(image, TifffileImage):
        held += image.unpacked
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        held += _held_for_tiff(image) + decoded * channels * _is_turned(image)
    if has_still(image):
        held += decoded * channels * _STILL_COPIES
    sent = padded_size(target)
    return int(held + decoded * (channels + to_plain + 4 * share) + sent[0] * sent[1] * _SMALL) + _FIXED


def _held_for_tiff(image: TiffImagePlugin.TiffImageFile) -> int:
    """Bytes of the strip or tile that libtiff unpacks at once, by the size that the file declares."""
    if image.info.get("compression", "raw") == "raw":
        return 0
    tags = image.tag_v2
    width, rows = tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)
    if width is None or rows is None:
        width, rows = image.width, min(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height), image.height)
    bits = sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
    return int(width * rows * max(bits / 8, 1) * 4 / 3)


def _is_turned(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow rotates the whole picture when it loads it."""
    return bool(image.tag_v2.get(ExifTags.Base.Orientation, 1) != 1)
