"""Limits of size, rotation to upright, and padding of thin pictures."""

import math

from PIL import Image

from vlmbatch.errors import ImageError

MIN_SIDE = 32  # pixels; the smart_resize of Qwen2-VL refuses sides under 28, that of Qwen3-VL under 32
MAX_RATIO = 100  # longest to shortest side; smart_resize refuses more than 200
MAX_JPEG_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


def check_side(size: tuple[int, int]) -> None:
    """Refuse a target size that is too large for a JPEG.

    Raises:
        ImageError: bad_shape.
    """
    if max(size) > MAX_JPEG_SIDE:
        raise ImageError(
            f"{size[0]}x{size[1]} is too large: a JPEG has at most {MAX_JPEG_SIDE} pixels a side; "
            "set a smaller --max-size, for example 1024",
            kind="bad_shape",
        )


def is_thin(size: tuple[int, int]) -> bool:
    """Whether a picture is thinner than models accept and so has to be padded."""
    return min(size) < _least_side(size)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture rotated and mirrored according to its EXIF orientation, 1 to 8."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size after padding to the least side that models accept."""
    least = _least_side(size)
    return max(size[0], least), max(size[1], least)


def padded(image: Image.Image, warnings: list[str]) -> Image.Image:
    """The picture centred on white if it is thinner than models accept, which adds a warning."""
    if not is_thin(image.size):
        return image
    width, height = image.size
    wide, high = padded_size(image.size)
    warnings.append(f"padded from {width}x{height} to {wide}x{high}")
    canvas = Image.new("RGB", (wide, high), "white")
    canvas.paste(image, ((wide - width) // 2, (high - height) // 2))
    return canvas


def _least_side(size: tuple[int, int]) -> int:
    return max(MIN_SIDE, math.ceil(max(size) / MAX_RATIO))
