"""Finds JPEG files that can be sent without encoding them again, and proves that they decode."""

import functools

from PIL import ImageFile

from vlmbatch.imaging.colours.plain import is_srgb
from vlmbatch.imaging.colours.space import ColourSpace
from vlmbatch.imaging.decode import decoding
from vlmbatch.imaging.geometry import is_thin
from vlmbatch.imaging.jpeg.strip import bared
from vlmbatch.imaging.orientation import UPRIGHT, orientation_of
from vlmbatch.imaging.survey import Survey
from vlmbatch.protocols import Room

_MOST_BYTES_A_PIXEL = 1  # quality 95 without subsampling stays below it except for noise
_HEADER_ALLOWANCE = 65_536  # bytes
_REMEMBERED_BYTES = 8_192  # the frame of a photo has one kilobyte
_COLUMN_BYTES = 256  # for each column of a picture of 8 rows that is coded in several scans
_COPIES = 7 / 3  # of the bytes that are sent: one without metadata, and one as base64, which is 4/3 as long


def passed(image: ImageFile.ImageFile, file: Survey, space: ColourSpace, room: Room) -> bytes | None:
    """An opened JPEG without its metadata if nothing else has to change before it is sent, else None.

    The file must be upright, plain RGB in sRGB and not thin; the caller has checked its size. The
    coded data is not decoded: libjpeg accepts any data there, and a truncated file has no end mark.

    Raises:
        ImageError: bad_image, its headers or tables are invalid.
    """
    if file.jpeg is None or not _needs_nothing(image, space):
        return None
    bare = bared(file.data)
    if bare is None or len(bare.data) > image.width * image.height * _MOST_BYTES_A_PIXEL + _HEADER_ALLOWANCE:
        return None
    with room(int(len(bare.data) * _COPIES) + image.width * _COLUMN_BYTES):
        prove = _prove if len(bare.frame) <= _REMEMBERED_BYTES else _prove.__wrapped__
        prove(bare.frame)
    return bare.data


def _needs_nothing(image: ImageFile.ImageFile, space: ColourSpace) -> bool:
    complaints = list[str]()
    return (
        not is_thin(image.size)
        and orientation_of(image, complaints) == UPRIGHT
        and not complaints
        and (space is None or (isinstance(space, bytes) and is_srgb(space)))
    )


# all photos of a camera have the same headers and tables, unless the camera chooses tables for each photo
@functools.lru_cache(maxsize=256)
def _prove(frame: bytes) -> None:
    """Let the decoder read every header and table; at 1/8 scale, where it has almost nothing to fill in."""
    with decoding(frame) as image:
        image.draft(None, (1, 1))
        image.load()
