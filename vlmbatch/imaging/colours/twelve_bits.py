"""Brightens colours of 12 bits in files of 16 bits a channel, of which Pillow keeps only the upper 8.

Grey keeps its 16 bits in Pillow, and deep_samples.py scales it; this makes RGB look the same.
"""

import sys
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image, ImageChops, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from vlmbatch.imaging.colours.deep_samples import Levels, levels, whites_of
from vlmbatch.imaging.decode import decoding
from vlmbatch.imaging.tiff.corrections import is_planar
from vlmbatch.imaging.tiff.pixels import TifffileImage, has_tifffile

_DARKEST = 15
"""The upper byte of the white of 12 bits, 4095."""
_SWAPPED = "B" if sys.byteorder == "little" else "L"  # libtiff returns the order of the machine


class LowerBytes(NamedTuple):
    """How to decode the lower bytes: Pillow's name of the samples, and where each channel is then.

    `planar`: Pillow has no name for the lower bytes of planes, so tifffile has to decode them.
    """

    rawmode: str
    channels: tuple[int, ...]
    planar: bool = False


_LOWER = {
    f"{mode};16{order}": LowerBytes(f"{mode};16{other}", (0, 1, 2, 3))
    for mode in ("RGB", "RGBX", "RGBA")
    for order, other in (("L", "B"), ("B", "L"), ("N", _SWAPPED))
}
# grey and alpha, of which the second and the fourth byte are the lower ones
_LOWER["LA;16B"] = LowerBytes("RGBA", (1, 1, 1, 3))


def lower_bytes(image: ImageFile.ImageFile) -> LowerBytes | None:
    """How to decode the lower bytes of an opened picture; None if it does not have RGB of 16 bits."""
    if getattr(image, "default_image", False):  # the first frame of an animated PNG is not at the first tile
        return None
    args = image.tile[0].args if image.tile else None
    lower = _LOWER.get(str(args[0] if isinstance(args, tuple) and args else args))
    if lower and isinstance(image, TiffImageFile) and is_planar(image):
        return lower._replace(planar=True)
    return lower


def brightened(image: Image.Image, data: bytes, lower: LowerBytes | None, warnings: list[str]) -> Image.Image:
    """The loaded picture, scaled from black to white if no sample has more than 12 bits; else as it is."""
    if lower is None or max(_highest(band) for band in image.split()[:3]) > _DARKEST:
        return image
    if lower.planar:
        return _decoded_again(data, warnings) if has_tifffile() else image
    uppers = image.split()
    with decoding(data) as again:
        again.tile = [tile._replace(args=_with(tile.args, lower.rawmode)) for tile in again.tile]
        again.load()
        bands = again.split()
        pairs = [(upper, bands[place]) for upper, place in zip(uppers, lower.channels, strict=False)]
    low = min(_lowest_sample(*pair) for pair in pairs[:3])
    high = max(_highest_sample(*pair) for pair in pairs[:3])
    found = levels(low, high, whites_of("unsigned", 16), warnings)
    bright = Image.merge(image.mode, [_scaled(*pair, found) for pair in pairs])
    if isinstance(key := again.info.get("transparency"), tuple):  # the one transparent colour of a PNG
        bright.info["transparency"] = tuple(_sum(value, found) for value in key)
    return bright


def _decoded_again(data: bytes, warnings: list[str]) -> Image.Image:
    picture = TifffileImage(BytesIO(data))
    picture.load()
    warnings += picture.warnings
    return picture


def _with(args: Any, rawmode: str) -> Any:
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode


def _scaled(upper: Image.Image, lower: Image.Image, found: Levels) -> Image.Image:
    """A channel in 8 bits; an alpha that uses all 16 bits stays as it is."""
    if _highest(upper) > _DARKEST:
        return upper
    large, small = _tables(found)
    return ImageChops.add(upper.point(large), lower.point(small))


def _tables(found: Levels) -> tuple[list[int], list[int]]:
    """What each upper and each lower byte adds to a sample of 8 bits."""
    unit = 255 / found.white
    large = [round(min(256 * value * unit, 255)) for value in range(256)]
    small = [round(value * unit) for value in range(256)]
    return large, small


def _sum(sample: int, found: Levels) -> int:
    large, small = _tables(found)
    return min(large[sample >> 8] + small[sample & 255], 255)


def _highest(band: Image.Image) -> int:
    return int(band.getextrema()[1])  # type: ignore[arg-type]  # one band: two numbers


def _highest_sample(upper: Image.Image, lower: Image.Image) -> int:
    top = _highest(upper)
    there = upper.point([255 * (value == top) for value in range(256)])
    return 256 * top + _highest(ImageChops.darker(lower, there))


def _lowest_sample(upper: Image.Image, lower: Image.Image) -> int:
    return 65535 - _highest_sample(ImageChops.invert(upper), ImageChops.invert(lower))
