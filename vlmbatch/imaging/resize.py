"""Shrinks images at the least cost that stays close to a full decode and a Lanczos filter."""

import functools
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import PIL
from PIL import Image, ImageFile

Size = tuple[int, int]
Box = tuple[float, float, float, float]
Resize = Callable[[Image.Image, Size, Box], Image.Image]

_REDUCING_GAP = 1.5
"""A box filter runs first if the image is at least twice this factor larger than its target."""

# The scales of a JPEG decoder, in eighths; for each, how many times larger than the target the decoded image
# must at least be for a Lanczos filter, and for a bicubic one, which costs two thirds of it. With these
# limits photos lose at most 0.003 of SSIM against the exact way and text 0.006 (docs/decisions.md); a JPEG
# of quality 85 alone costs ten times that. 3/8 is decoded more exactly than the powers of two.
_SCALES = ((1, 1.8, math.inf), (2, 1.4, math.inf), (3, 1.2, 1.3), (4, 1.2, 1.5))
_THREE_EIGHTHS = 3

_YCBCR = "YCbCr"
_ADOBE_YCC = 1  # in Adobe's segment: the colours are coded as brightness and two differences
_RGB_IDS = list(b"RGB")  # component numbers by which libjpeg recognises RGB if no segment names the coding

_KNOWN_PILLOW = "13"
"""cykooz.resizer works on the memory of Pillow's images, and knows its layout for this version."""

_SLACK_BYTES = 1 << 20
"""Room for small allocations and for the growth of the heap."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The resizing that remains to be done after decoding.

    `box` is the part of the decoded pixels that belongs to the image, if the decoder had to round its sides
    up. An extra pixel would shift the far side, which visibly damages text.
    """

    resampling: Image.Resampling
    box: Box | None = None


def draft(image: ImageFile.ImageFile, target: Size) -> Rest:
    """Let the JPEG decoder shrink the image while it decodes, as far as quality allows.

    The decoded image is never smaller than the target, which must have the aspect of the image.
    """
    gap = min(image.width / target[0], image.height / target[1])
    if image.format in ("JPEG", "MPO"):
        if gap > 1 and not has_simd() and _is_coded_as_ycbcr(image):
            image.draft(_YCBCR, None)
        for eighths, lanczos, bicubic in _SCALES:
            scale = eighths / 8
            if gap * scale >= lanczos and _can_decode(eighths):
                box = (0, 0, image.width * scale, image.height * scale)
                _draft(image, eighths)
                return Rest(_filter(gap * scale, bicubic), box)
    return Rest(_filter(gap, 1))


def shrunk(image: Image.Image, target: Size, rest: Rest) -> Image.Image:
    """The decoded image in the target size; the same object if it already has that size.

    Accepts RGB, YCbCr, RGBA, L or CMYK. cykooz.resizer does the work if it is installed, always with a
    Lanczos filter, which costs less there than a bicubic filter in Pillow.
    """
    if image.size == target:
        return image
    if image.mode == "RGBA":  # Pillow would premultiply by itself, but then skip the box filter
        return shrunk(image.convert("RGBa"), target, rest).convert("RGBA")
    if image.mode == _YCBCR:
        return _shrunk_by_plane(image, target, rest)
    simd = _simd_resize()
    if simd is not None:
        return simd(image, target, rest.box or (0, 0, *image.size))
    return image.resize(target, rest.resampling, rest.box, _REDUCING_GAP)


def has_simd() -> bool:
    """Whether cykooz.resizer, which uses the vector instructions of the processor, resizes the images."""
    return _simd_resize() is not None


def _filter(gap: float, bicubic: float) -> Image.Resampling:
    """Bicubic if the gap is at least `bicubic` and no box filter runs first, else Lanczos."""
    is_enough = bicubic <= gap < 2 * _REDUCING_GAP
    return Image.Resampling.BICUBIC if is_enough else Image.Resampling.LANCZOS


def _can_decode(eighths: int) -> bool:
    # no decoder has SIMD for 3/8; with SIMD for resizing, 3/8 costs more than it saves
    return eighths != _THREE_EIGHTHS or (not has_simd() and _decodes_three_eighths())


def _draft(image: ImageFile.ImageFile, eighths: int) -> None:
    """Do the work of JpegImageFile.draft(), which supports powers of two only.

    libjpeg gets a divisor of two, three, four or eight, and uses the next eighth above.
    """
    scaled = (math.ceil(image.width * eighths / 8), math.ceil(image.height * eighths / 8))
    image.tile = [image.tile[0]._replace(extents=(0, 0, *scaled))]
    image.decoderconfig = (round(8 / eighths), 0)
    image._size = scaled


@functools.cache
def _decodes_three_eighths() -> bool:
    """Whether this build of Pillow decodes at 3/8; libjpeg-turbo and libjpeg since version 7 do."""
    out = BytesIO()
    Image.new("RGB", (48, 16), "white").save(out, "JPEG")
    try:
        with Image.open(out, formats=("JPEG",)) as image:
            _draft(image, _THREE_EIGHTHS)
            image.load()
            return image.getpixel((17, 5)) == (255, 255, 255)
    except OSError:
        return False


def _is_coded_as_ycbcr(image: ImageFile.ImageFile) -> bool:
    """Whether an opened JPEG codes brightness and colour apart and so can be decoded without mixing them."""
    numbers = [component[0] for component in getattr(image, "layer", ())]
    transform = image.info.get("adobe_transform", _ADOBE_YCC)
    return image.mode == "RGB" and numbers != _RGB_IDS and transform == _ADOBE_YCC


def _shrunk_by_plane(image: Image.Image, target: Size, rest: Rest) -> Image.Image:
    """A YCbCr image in the target size; four pixels share a colour, which is all that 4:2:0 keeps."""
    brightness, *colours = image.split()
    planes = [brightness.resize(target, rest.resampling, rest.box, _REDUCING_GAP)]
    # half of an odd side would put the colours off the centre of their pixels
    kept = (_halved(target[0]), _halved(target[1]))
    for colour in colours:
        mean = colour.resize(kept, Image.Resampling.BOX, rest.box)
        planes.append(mean.resize(target, Image.Resampling.NEAREST))
    return Image.merge(_YCBCR, planes)


def _halved(side: int) -> int:
    return side if side % 2 else side // 2


@functools.cache
def _simd_resize() -> Resize | None:
    """Resizes the box of an RGB, RGBa, L or CMYK image; None without cykooz.resizer."""
    if PIL.__version__.split(".")[0] != _KNOWN_PILLOW:
        return None
    try:
        from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
    except ImportError:
        return None
    lanczos = ResizeAlg.convolution(FilterType.lanczos3)

    def resize(image: Image.Image, target: Size, box: Box) -> Image.Image:
        small = Image.new(image.mode, target)
        _require_memory(_simd_bytes(image.size, target))
        part = CropBox(box[0], box[1], box[2] - box[0], box[3] - box[1])
        # a resizer works for one thread at a time
        Resizer().resize_pil(image, small, ResizeOptions(lanczos, use_alpha=False, crop_box=part))
        return small

    return resize


def _simd_bytes(size: Size, target: Size) -> int:
    """An upper bound of what cykooz.resizer allocates itself: kernels, and the rows between passes."""
    kernels = sum(64 * (side + shrunk) for side, shrunk in zip(size, target, strict=True))
    return kernels + 4 * target[0] * size[1] + _SLACK_BYTES


def _require_memory(size: int) -> None:
    """Raise MemoryError if this process cannot get `size` bytes: cykooz.resizer would abort it."""
    try:
        mmap.mmap(-1, size).close()  # costs nothing as long as no page is touched
    except OSError as error:
        raise MemoryError from error
