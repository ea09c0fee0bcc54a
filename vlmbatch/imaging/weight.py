"""How much memory it takes to bring an opened picture to the size that is sent, before a pixel is decoded.

The factors are those of Pillow 12.3; benchmarks/decode_memory.py measures them.
"""

from PIL import ImageFile

from vlmbatch.imaging.shape import REDUCING_GAP

_CHANNEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "LA": 4, "PA": 4}
"""What Pillow stores for a pixel; four for every other mode."""
_TO_PLAIN = {"RGB": 0, "L": 0, "1": 1, "P": 4, "CMYK": 4, "YCbCr": 4}
"""What it takes besides to make it plain in colour; twelve, for more copies, for all other modes."""
_DECODER = {"WEBP": 12, "AVIF": 6, "HEIF": 12}
"""What the decoder itself holds for each pixel of the file; a TIFF may be one strip."""
_COMPRESSED_STRIP = 4
_COEFFICIENT = 2  # bytes, of a JPEG that comes in several scans (libjpeg's JCOEF)
_SMALL = 8  # the picture as sent, turned, with its profile applied, and encoded
_FIXED = 1_000_000


def decode_bytes(image: ImageFile.ImageFile, full: tuple[int, int], target: tuple[int, int]) -> int:
    """Bytes at the peak of decoding `image`, whose file has `full` pixels, and resizing it to `target`.

    `image` is opened and drafted, so that a JPEG is as small as it will be decoded. An upper bound for
    what benchmarks/decode_memory.py measures.
    """
    in_file, decoded = full[0] * full[1], image.width * image.height
    mode = image.mode
    to_plain = 12 if image.has_transparency_data else _TO_PLAIN.get(mode, 12)
    share = min(max(target[0] / max(image.width, 1), 1 / REDUCING_GAP), 1.0)
    of_decoded = _CHANNEL_BYTES.get(mode, 4) + to_plain + 4 * share
    sent = target[0] * target[1]
    return int(in_file * _held_by_decoder(image) + decoded * of_decoded + sent * _SMALL) + _FIXED


def _held_by_decoder(image: ImageFile.ImageFile) -> int:
    """Bytes for each pixel of the file."""
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        return _COEFFICIENT * len(image.getbands())
    if image.format == "TIFF" and image.info.get("compression", "raw") != "raw":
        return _COMPRESSED_STRIP
    return _DECODER.get(image.format or "", 0)
