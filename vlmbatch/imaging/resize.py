"""Makes pictures smaller at the least cost that keeps what a full decode and a Lanczos filter would show."""

import functools
import math
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageFile

from vlmbatch.imaging import planes, simd

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_REDUCING_GAP = 1.5
"""A box filter goes first where the picture is at least twice that much larger than its target."""

# The sizes at which a JPEG decoder can decode, in eighths; how many times larger than the target that has to
# be at least for a Lanczos filter to do the rest, and for a bicubic one, which costs two thirds of it. So
# photos lose at most 0.003 of SSIM against the exact way and text 0.006 (docs/decisions.md); a JPEG of
# quality 85 alone takes ten times that. 3/8 is decoded more exactly than the powers of two.
_SCALES = ((1, 1.8, math.inf), (2, 1.4, math.inf), (3, 1.2, 1.3), (4, 1.2, 1.5))
_THREE_EIGHTHS = 3


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to do when a picture has been decoded.

    `box` is the part of the decoded pixels that is the picture, where the decoder had to round its sides
    up; a whole pixel more would move what is at the far side, which text does not forgive.
    """

    resampling: Image.Resampling
    box: Box | None = None


def draft(image: ImageFile.ImageFile, target: Size) -> Rest:
    """Let the JPEG decoder shrink while it decodes, as far as quality allows; never below the target.

    The target must have the picture's aspect.
    """
    gap = min(image.width / target[0], image.height / target[1])
    if image.format in ("JPEG", "MPO"):
        if gap > 1 and not simd.is_there() and planes.are_coded(image):
            image.draft(planes.MODE, None)
        for eighths, lanczos, bicubic in _SCALES:
            scale = eighths / 8
            if gap * scale >= lanczos and _can_decode(eighths):
                box = (0, 0, image.width * scale, image.height * scale)
                _draft(image, eighths)
                return Rest(_filter(gap * scale, bicubic), box)
    return Rest(_filter(gap, 1))


def shrunk(image: Image.Image, target: Size, rest: Rest) -> Image.Image:
    """The decoded picture in that size; itself where it has it already.

    Takes RGB, YCbCr, RGBA, L or CMYK. Where the SIMD package is there, it does it, and always by Lanczos,
    which costs it less than a bicubic filter costs Pillow.
    """
    if image.size == target:
        return image
    if image.mode == "RGBA":  # Pillow would premultiply by itself, but then leave the box filter out
        return shrunk(image.convert("RGBa"), target, rest).convert("RGBA")
    if image.mode == planes.MODE:
        return planes.resized(image, target, rest.resampling, rest.box, _REDUCING_GAP)
    small = simd.resized(image, target, rest.box)
    if small is None:
        small = image.resize(target, rest.resampling, rest.box, _REDUCING_GAP)
    return small


def _filter(gap: float, bicubic: float) -> Image.Resampling:
    """Bicubic from that gap on, but not behind a box filter."""
    is_enough = bicubic <= gap < 2 * _REDUCING_GAP
    return Image.Resampling.BICUBIC if is_enough else Image.Resampling.LANCZOS


def _can_decode(eighths: int) -> bool:
    # no decoder has SIMD for 3/8; where resizing has, it saves less than that costs
    return eighths != _THREE_EIGHTHS or (not simd.is_there() and _decodes_three_eighths())


def _draft(image: ImageFile.ImageFile, eighths: int) -> None:
    """What JpegImageFile.draft() does, which knows powers of two alone.

    libjpeg is asked for one part in two, three, four or eight, and takes the next eighth above.
    """
    scaled = (math.ceil(image.width * eighths / 8), math.ceil(image.height * eighths / 8))
    image.tile = [image.tile[0]._replace(extents=(0, 0, *scaled))]
    image.decoderconfig = (round(8 / eighths), 0)
    image._size = scaled


@functools.cache
def _decodes_three_eighths() -> bool:
    """Whether this build of Pillow does: libjpeg-turbo and libjpeg since version 7 can."""
    out = BytesIO()
    Image.new("RGB", (48, 16), "white").save(out, "JPEG")
    try:
        with Image.open(out, formats=("JPEG",)) as image:
            _draft(image, _THREE_EIGHTHS)
            image.load()
            return image.getpixel((17, 5)) == (255, 255, 255)
    except OSError:
        return False
