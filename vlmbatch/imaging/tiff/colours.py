"""Makes pictures of arrays of samples of any type; the only user of numpy besides the decoder."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from vlmbatch.errors import ImageError
from vlmbatch.imaging.colours.deep_samples import (
    Levels,
    levels,
    marks_of,
    none_finite,
    warn_of_unknown,
    whites_of,
)
from vlmbatch.imaging.tiff.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[Any]

_WHITE_IS_ZERO, _CIELAB, _ICCLAB = 0, 8, 9
_BLOCK = 1 << 18  # samples that are converted at once, so that copies in float64 stay small


def picture_of(
    samples: "Samples", layout: Layout, colour_map: tuple[int, ...], warnings: list[str]
) -> Image.Image:
    """A picture in L, RGB, RGBA, CMYK, YCbCr or LAB of samples of shape (height, width, channels).

    Transparency is in the last channel. CMYK may have lighter inks instead (see Layout.lightens_inks).

    Raises:
        ImageError: bad_image, no sample is a finite number, or the colour map is too short.
    """
    colours = samples[..., : layout.channels]
    alpha = None
    if layout.alpha is not None:
        alpha = _scaled(samples[..., layout.channels :], Levels(0, _full(layout)))
    if layout.colours == "P":
        return _with_alpha(_from_map(colours[..., 0], layout, colour_map), alpha, layout)
    if layout.colours == "LAB":
        return _lab(colours, layout)
    is_absolute = layout.premultiplied and layout.kind != "float"  # relative to the alpha
    if layout.colours in ("L", "RGB") and not is_absolute:
        found = _levels_of(colours, layout, warnings)
    else:
        found = Levels(0, _full(layout))
    scaled = _scaled(colours, found)
    if layout.photometric == _WHITE_IS_ZERO:
        scaled = 255 - scaled
    if layout.kind == "float" or layout.no_data is not None:
        scaled[~_known(colours, layout)] = 0
    return _with_alpha(_image(scaled, layout.colours), alpha, layout)


def _with_alpha(picture: Image.Image, alpha: "Samples | None", layout: Layout) -> Image.Image:
    if alpha is None:
        return picture
    mask = _image(alpha, "L")
    if layout.lightens_inks:  # no ink is white, so multiplied inks lie on white already
        blank = Image.new("CMYK", picture.size)
        return picture if layout.premultiplied else Image.composite(picture, blank, mask)
    picture = picture.convert("RGB")
    if layout.premultiplied:
        return Image.merge("RGBa", (*picture.split(), mask)).convert("RGBA")
    picture.putalpha(mask)
    return picture


def _image(samples: "Samples", mode: str) -> Image.Image:
    height, width = samples.shape[:2]
    return Image.frombytes(mode, (width, height), samples.tobytes())


def _full(layout: Layout) -> float:
    """The value of full light, ink or opacity, where it is not guessed from the samples."""
    if layout.kind == "float":
        return 1
    return float(2 ** (layout.bits - (layout.kind == "signed")) - 1)


def _levels_of(samples: "Samples", layout: Layout, warnings: list[str]) -> Levels:
    low, high, bad = math.inf, -math.inf, 0
    for block in _blocks(samples):
        known = block[_known(block, layout)]
        bad += block.size - known.size
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    if low > high:
        raise none_finite()
    found = levels(low, high, whites_of(layout.kind, layout.bits), warnings)
    warn_of_unknown(bad, layout.no_data, warnings)
    return found


def _known(samples: "Samples", layout: Layout) -> "Samples":
    """Whether each sample is a finite number, and not the value of no data."""
    import numpy as np

    known = np.isfinite(samples)
    with np.errstate(all="ignore"):  # the value may be too large for the type of the samples
        for mark in marks_of(layout.no_data):
            known &= samples != mark
    return known


def _blocks(samples: "Samples") -> Iterator["Samples"]:
    """Blocks of rows, from top to bottom."""
    rows = max(_BLOCK // max(samples[0].size, 1), 1)
    for top in range(0, len(samples), rows):
        yield samples[top : top + rows]


def _scaled(samples: "Samples", found: Levels) -> "Samples":
    """The samples as bytes: 0 for black, 255 for white; outside of them clipped, for NaN anything."""
    import numpy as np

    result = np.empty(samples.shape, np.uint8)
    black, white = found.black / 2, found.white / 2  # halves: their difference is finite, too
    with np.errstate(all="ignore"):
        for block, target in zip(_blocks(samples), _blocks(result), strict=True):
            part = (block.astype(np.float64) / 2 - black) / ((white - black) or 1)
            target[...] = np.clip(np.nan_to_num(part) * 255 + 0.5, 0, 255)
    return result


def _from_map(index: "Samples", layout: Layout, colour_map: tuple[int, ...]) -> Image.Image:
    """The picture of a palette of 16 bits (TIFF 6.0 section 5), or of 8 by an old mistake of writers."""
    import numpy as np

    if layout.kind != "unsigned" or len(colour_map) != 3 * 2**layout.bits:
        raise ImageError(f"the TIFF is broken: its palette does not fit pixel values of {layout.bits} bits")
    table = np.asarray(colour_map).reshape(3, -1).T
    table = (table if table.max() < 256 else table >> 8).astype(np.uint8)
    return _image(table[index.astype(np.intp)], "RGB")


def _lab(samples: "Samples", layout: Layout) -> Image.Image:
    """CIE L*a*b* in Pillow's form: 8 bits, with signed a* and b*.

    In 8 and 16 bits, CIELAB has signed a* and b*, and ICCLAB has them with 128 added; L* of ICCLAB is full
    at 0xFF00 (TIFF 6.0 section 23, Adobe's TIFF Technical Notes of 2002). Floats are L* from 0 to 100. L* has
    no sign, also if libvips calls all channels signed.
    """
    import numpy as np

    if layout.kind == "float":
        light, unit, offset = 100.0, 1.0, 0.0
    elif layout.photometric == _ICCLAB:
        light, unit, offset = (65280.0, 256.0, 128.0) if layout.bits == 16 else (255.0, 1.0, 128.0)
    else:
        light, unit, offset = (65535.0, 256.0, 0.0) if layout.bits == 16 else (255.0, 1.0, 0.0)
    if layout.kind != "float" and layout.bits not in (8, 16):
        raise ImageError(f"the TIFF has LAB colours of {layout.bits} bits; convert it to RGB first")
    result = np.empty(samples.shape, np.uint8)
    lightness = samples[..., 0]
    if layout.kind == "signed":
        lightness = lightness.view(f"u{layout.bits // 8}")
    result[..., 0] = _scaled(lightness, Levels(0, light))
    shades = samples[..., 1:]
    if layout.photometric == _CIELAB and layout.kind == "unsigned":
        shades = shades.view(f"i{layout.bits // 8}")
    result[..., 1:] = _scaled(shades, Levels((-128 + offset) * unit, (127 + offset) * unit)) ^ 128
    return _image(result, "LAB")
