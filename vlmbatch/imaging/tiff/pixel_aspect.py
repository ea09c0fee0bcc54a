"""Finds the size that a fax has with square pixels; its lines are often twice as far apart as its columns."""

import math
from numbers import Rational

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import X_RESOLUTION, Y_RESOLUTION, TiffImageFile

_LEAST, _MOST = 1.2, 3.0
"""The longer side of a pixel divided by the shorter one: less is a rounded resolution, more a mistake."""
_LYING = frozenset((5, 6, 7, 8))  # orientations that swap the sides


def square_size(image: Image.Image) -> tuple[int, int]:
    """The size of an opened picture after its pixels became square, by which the coarser axis gets longer.

    Only a TIFF of 1 bit has other pixels: ITU-T T.4 knows 204 by 98, 196 and 391 dots an inch. In any other
    file, different resolutions are more often a mistake.
    """
    width, height = image.size
    if not isinstance(image, TiffImageFile) or image.mode != "1":
        return width, height
    across, down = _resolution(image, X_RESOLUTION), _resolution(image, Y_RESOLUTION)
    if image.tag_v2.get(ExifTags.Base.Orientation) in _LYING:  # Pillow has swapped the sides already
        across, down = down, across
    if _LEAST * down <= across <= _MOST * down:
        return width, round(height * across / down)
    if _LEAST * across <= down <= _MOST * across:
        return round(width * down / across), height
    return width, height


def _resolution(image: TiffImageFile, tag: int) -> float:
    """Pixels in some unit; NaN, which is outside of any range, if the file gives none."""
    value = image.tag_v2.get(tag)
    return float(value) if isinstance(value, (int, float, Rational)) else math.nan
