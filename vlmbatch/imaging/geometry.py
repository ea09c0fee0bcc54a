"""Sizes and turns: how large a picture is to be, which way is up, and room around what is too thin."""

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
"""What makes each EXIF orientation upright (EXIF 2.32, tag 0x0112)."""


def check_side(size: tuple[int, int]) -> None:
    """Refuse a picture that is still larger than a JPEG can be.

    Raises:
        ImageError: bad_shape.
    """
    if max(size) > MAX_JPEG_SIDE:
        raise ImageError(
            f"{size[0]}x{size[1]}: a JPEG ends at {MAX_JPEG_SIDE} pixels a side; set --max-size, say to 1024",
            kind="bad_shape",
        )


def is_thin(size: tuple[int, int]) -> bool:
    """Whether a picture is thinner than models take, so that it has to be padded."""
    return min(size) < _least_side(size)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture with its EXIF orientation, 1 to 8, carried out."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size with room around what is thinner than models take."""
    least = _least_side(size)
    return max(size[0], least), max(size[1], least)


def padded(image: Image.Image, warnings: list[str]) -> Image.Image:
    """The picture in the middle of white where it is thinner than models take; says so in `warnings`."""
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
