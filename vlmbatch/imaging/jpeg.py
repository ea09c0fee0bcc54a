"""Writes the JPEG that is sent, and finds the originals that can be sent as they are."""

from io import BytesIO

from PIL import Image, ImageFile

from vlmbatch.imaging.jpeg_structure import JpegStructure
from vlmbatch.imaging.opening import OutOfMemory
from vlmbatch.imaging.shape import is_thin
from vlmbatch.imaging.weight import decode_bytes
from vlmbatch.protocols import Room

MEDIA_TYPE = "image/jpeg"

_MOST_BYTES_A_PIXEL = 1  # quality 95 without subsampling stays under it for all but noise
_HEADER_ALLOWANCE = 65_536  # bytes


def encode(image: Image.Image, quality: int) -> bytes:
    """The RGB picture as JPEG, without metadata; the same picture always gives the same bytes.

    4:2:0 and no `optimize`, which takes 2.5 times as long for 1 % of the size.

    Raises:
        ImageError: too_large, when memory does not suffice.
    """
    image.info = {}  # save() would write a comment that it finds here
    out = BytesIO()
    try:
        image.save(out, "JPEG", quality=quality)
    # only memory can fail between two places in memory, and the codec says so as OSError
    except (MemoryError, OSError) as error:
        raise OutOfMemory from error
    return out.getvalue()


def may_pass(
    image: ImageFile.ImageFile, structure: JpegStructure | None, size_bytes: int, max_size: int
) -> bool:
    """Whether an original, if it decodes, is already what would be sent: plain, bare, small enough."""
    return (
        structure is not None
        and structure.bare
        and image.format == "JPEG"
        and image.mode == "RGB"
        and (max_size == 0 or max(image.size) <= max_size)
        and not is_thin(image.size)
        and size_bytes <= image.width * image.height * _MOST_BYTES_A_PIXEL + _HEADER_ALLOWANCE
    )


def decode_smallest(image: ImageFile.ImageFile, structure: JpegStructure | None, room: Room) -> None:
    """Decode a JPEG at 1/8, the cheapest way that meets its every byte, so that a cut one raises."""
    full = image.size
    image.draft(None, (1, 1))
    with room(decode_bytes(image, full, image.size, structure)):
        image.load()
