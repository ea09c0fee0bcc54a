"""Resizes with the vector instructions of the processor where cykooz.resizer is installed; its only home."""

import functools
from collections.abc import Callable

import PIL
from PIL import Image

Resize = Callable[[Image.Image, tuple[int, int], tuple[float, float, float, float]], Image.Image]

_KNOWN_PILLOW = "13"
"""The package works on the memory of Pillow's pictures, and of this version it knows how that is laid out."""


def is_there() -> bool:
    """Whether pictures are resized here."""
    return _resize() is not None


def resized(
    image: Image.Image, target: tuple[int, int], box: tuple[float, float, float, float] | None
) -> Image.Image | None:
    """`box` of an RGB, RGBa, L or CMYK picture in that size, by Lanczos; None without the package."""
    resize = _resize()
    return None if resize is None else resize(image, target, box or (0, 0, *image.size))


@functools.cache
def _resize() -> Resize | None:
    if PIL.__version__.split(".")[0] != _KNOWN_PILLOW:
        return None
    try:
        from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
    except ImportError:
        return None
    lanczos = ResizeAlg.convolution(FilterType.lanczos3)

    def resize(
        image: Image.Image, target: tuple[int, int], box: tuple[float, float, float, float]
    ) -> Image.Image:
        small = Image.new(image.mode, target)
        part = CropBox(box[0], box[1], box[2] - box[0], box[3] - box[1])
        # a resizer works for one thread at a time
        Resizer().resize_pil(image, small, ResizeOptions(lanczos, use_alpha=False, crop_box=part))
        return small

    return resize
