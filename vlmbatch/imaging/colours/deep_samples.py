"""Scales deep samples, signed ones and floats to 8 bits; Pillow's convert() would clip them."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from PIL import Image, ImageMath, TiffImagePlugin

from vlmbatch.errors import ImageError

Kind = Literal["unsigned", "signed", "float"]

_KINDS: dict[int, Kind] = {2: "signed", 3: "float"}  # values of SampleFormat (TIFF 6.0 section 19)
_GDAL_NODATA = 42113  # a tag of GDAL: the number, as text, of the samples of which nothing is known
_LOWEST_FLOAT = -3.4028234663852886e38
"""The least float of 32 bits, which many maps have where nothing is known."""
_TOO_LARGE = 2**31  # for Pillow's integers
_WHITE_IS_ZERO = 0  # a value of PhotometricInterpretation (TIFF 6.0 section 3)
_TWELVE_BITS = 4095
"""The white of 12-bit sensors, whose files would look black if read as 16 bits."""


class Levels(NamedTuple):
    """The values that become black and white."""

    black: float
    white: float


def whites_of(kind: Kind, bits: int) -> tuple[float, ...]:
    """The candidates for white, in rising order; the first that no sample exceeds is used."""
    if kind == "float":
        return (1, 255, _TWELVE_BITS, 65535)
    if kind == "signed" and bits <= 16:
        return (127,) if bits <= 8 else (255, _TWELVE_BITS, 32767)
    if bits < 16:
        return (2**bits - 1,)
    return (_TWELVE_BITS, 65535) if bits == 16 else (255, _TWELVE_BITS, 65535)


def levels(low: float, high: float, whites: tuple[float, ...], warnings: list[str]) -> Levels:
    """The levels for samples from `low` to `high`; a warning if they are not the usual ones of their kind."""
    if low < 0 or high > whites[-1]:
        found = Levels(low, high)
    else:
        found = Levels(0, next(white for white in whites if high <= white))
    if found.black != 0 or found.white not in (1, 255, whites[-1]):
        warnings.append(f"pixel values from {low:g} to {high:g} were scaled from black to white")
    return found


def no_data_of(tags: TiffImagePlugin.ImageFileDirectory_v2) -> float | None:
    """The value of samples of which nothing is known; None if it is not finite, or 0, which is black."""
    try:
        value = float(tags[_GDAL_NODATA])
    except (KeyError, TypeError, ValueError):
        return None
    return value if value != 0 and math.isfinite(value) else None


def marks_of(no_data: float | None) -> tuple[float, ...]:
    """The finite values that mean that nothing is known."""
    return (_LOWEST_FLOAT,) if no_data is None else (_LOWEST_FLOAT, no_data)


def warn_of_unknown(count: int, no_data: float | None, warnings: list[str]) -> None:
    """Add a warning if `count` samples are NaN, infinite, or the value of no data."""
    if count:
        values = "pixel value is" if count == 1 else "pixel values are"
        no = "" if no_data is None else f"{no_data:g} (no data), "
        warnings.append(f"{count} {values} {no}NaN or infinite, and black in the picture that was sent")


def none_finite() -> ImageError:
    """The refusal of a picture without any usable sample."""
    return ImageError("all its pixel values are NaN or infinite, so there is no picture")


def in_eight_bits(image: Image.Image, warnings: list[str]) -> Image.Image:
    """A picture of long integers or floats, of one channel, as L."""
    whites, inverted = _whites(image), _is_inverted(image)
    no_data = no_data_of(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    if image.mode.startswith("I;16"):
        image = image.convert("I")
    bad = _unknown(image, no_data)
    low, high = _extrema(image, bad)
    black, white = levels(low, high, whites, warnings)
    if bad is not None:
        warn_of_unknown(bad.histogram()[255], no_data, warnings)
        image.paste(white if inverted else black, mask=bad)
    scale = 255 / ((white - black) or 1)  # the range is 0 if all pixels have one value
    if inverted:
        black, scale = white, -scale
    return image.point(_line(scale, 0.5 - black * scale)).convert("L")


def _line(scale: float, offset: float) -> Callable[[float], float]:
    # Pillow calls it with an object, to find out the two numbers
    return lambda value: value * scale + offset


def _whites(image: Image.Image) -> tuple[float, ...]:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return whites_of("unsigned", 16) if image.mode.startswith("I;16") else whites_of("signed", 32)
    (number, *_) = image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    (bits, *_) = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    return whites_of(_KINDS.get(number, "unsigned"), bits)


def _is_inverted(image: Image.Image) -> bool:
    """Whether zero is white; Pillow inverts such scans if they have 8 bits, but not if they have more."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    )


def _unknown(image: Image.Image, no_data: float | None) -> Image.Image | None:
    """A mask of the samples that are NaN, infinite, or the value of no data; None if there are none."""
    if image.mode == "F":
        # a value minus itself is 0 only if it is finite (IEEE 754)
        found = ImageMath.lambda_eval(lambda given: given["image"] - given["image"] != 0, image=image)
        for mark in marks_of(no_data):
            found = _also(found, image, mark)
    elif no_data is not None and -_TOO_LARGE <= no_data < _TOO_LARGE and no_data.is_integer():
        found = ImageMath.lambda_eval(lambda given: given["image"] == int(no_data), image=image)
    else:
        return None
    mask: Image.Image = found.point(_line(255, 0)).convert("L")
    return mask if mask.getbbox() else None


def _also(found: Image.Image, image: Image.Image, mark: float) -> Image.Image:
    """A mask that is not 0 where `found` is not 0, and where a sample is `mark`."""
    both: Image.Image = ImageMath.lambda_eval(
        lambda given: given["found"] + (given["image"] == mark), found=found, image=image
    )
    return both


def _extrema(image: Image.Image, bad: Image.Image | None) -> tuple[float, float]:
    """The least and the greatest sample outside of the mask."""
    if bad is None:
        return _least_and_greatest(image)
    greatest = math.inf if image.mode == "F" else _TOO_LARGE - 1
    filled = image.copy()
    filled.paste(greatest, mask=bad)
    low, _ = _least_and_greatest(filled)
    filled.paste(-greatest, mask=bad)
    _, high = _least_and_greatest(filled)
    if low > high:
        raise none_finite()
    return low, high


def _least_and_greatest(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    return float(low), float(high)  # type: ignore[arg-type]  # one band: two numbers
