"""The pictures that the files hold, as numbers, and how a picture differs from another."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Values = NDArray[np.float64]
"""From 0 to 1, black to white; (height, width), or (height, width, channels)."""
Picture = NDArray[np.uint8]
"""sRGB, upright and on white: (height, width, 3)."""

EVEN, ODD = (320, 240), (321, 243)
_QUARTERS = ((0.86, 0.08, 0.08), (0.08, 0.71, 0.08), (0.08, 0.16, 0.86), (0.94, 0.86, 0.0))
_LUMA = (0.299, 0.587, 0.114)
"""The greatest mean difference of 255, for the whole picture and for one of its sixteen parts."""


def colours(size: tuple[int, int] = ODD) -> Values:
    """Four coloured quarters with gradients, text, and bars of black and white; (height, width, 3)."""
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    quarter = (across >= 0.5) + 2 * (down >= 0.5)
    base = np.array(_QUARTERS)[quarter] * (0.6 + 0.4 * ((across + 2 * down) / 3))[..., None]
    base[height // 3 : height // 3 + 24] = np.linspace(0, 1, width)[None, :, None]
    ink = np.asarray(_text(size)) > 0
    base[ink] = 1.0
    base[-20:-10, : width // 3] = 0.0
    base[-20:-10, width // 3 : 2 * width // 3] = 1.0
    return base


def muted() -> Values:
    """The same without colours at the edge of sRGB: a step of another space is many of sRGB there."""
    return 0.1 + 0.8 * colours()


def grey(size: tuple[int, int] = ODD) -> Values:
    """The luma of the same picture; (height, width)."""
    return np.clip(colours(size) @ np.array(_LUMA), 0, 1)


def opacity(size: tuple[int, int] = ODD) -> Values:
    """From transparent on the left to opaque on the right; (height, width)."""
    width, height = size
    return np.tile(np.clip(np.linspace(-0.1, 1.3, width), 0, 1), (height, 1))


def _text(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("1", size)
    pen = ImageDraw.Draw(mask)
    for line in range(4):
        pen.text((12 + 40 * line, 12 + 58 * line), f"invoice {line}: 87.50 EUR", fill=1)
    return mask


def levels(values: Values, bits: int) -> NDArray[np.uint64]:
    """The nearest whole numbers, white being the largest number of so many bits."""
    white = 2.0**bits - 1
    # a float cannot hold 2**64-1, and rounds it up
    return np.minimum(np.rint(values * white), np.nextafter(2.0**bits, 0)).astype(np.uint64)


def stepped(values: Values, bits: int) -> Values:
    """The values that so many bits can hold."""
    return np.rint(values * (2.0**bits - 1)) / (2.0**bits - 1)


def picture(values: Values, alpha: Values | None = None) -> Picture:
    """What should be seen of grey or RGB values, on white."""
    rgb = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., :3]
    if alpha is not None:
        rgb = rgb * alpha[..., None] + 1 - alpha[..., None]
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


@functools.cache
def indexed(bits: int, size: tuple[int, int] = ODD) -> tuple[Values, NDArray[np.uint8]]:
    """A palette of black, white and colours in no order, and the nearest entry for each pixel."""
    values, count = colours(size), 2**bits
    some = values.reshape(-1, 3)[:: size[0] * size[1] // (count + 1)][: count - 2]
    table = np.random.default_rng(bits).permutation(np.vstack(([[0, 0, 0], [1, 1, 1]], some))[:count])
    index = [np.abs(row[:, None] - table).sum(axis=2).argmin(axis=1) for row in values]
    return table, np.array(index, np.uint8)


def laid(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The pixels as they lie in a file with this EXIF orientation, so that turning them gives `upright`."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.swapaxes(0, 1), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    return np.ascontiguousarray(turned)


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean absolute difference of two pictures of 255, and that of the worst of sixteen parts."""

    mean: float
    worst: float

    def is_within(self, step: float) -> bool:
        """Whether it is small for samples whose step of 8 bits is `step` of sRGB."""
        return self.mean < 3 * step and self.worst < 12 * step

    def __str__(self) -> str:
        return f"{self.mean:.1f} of 255, {self.worst:.1f} in the worst sixteenth"


def difference(one: Picture, other: Picture) -> Difference:
    """How far two pictures are apart; as far as possible if their sides differ."""
    if one.shape != other.shape:
        return Difference(255.0, 255.0)
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16)).mean(axis=2)
    cells = [cell.mean() for rows in np.array_split(apart, 4) for cell in np.array_split(rows, 4, axis=1)]
    return Difference(float(apart.mean()), float(max(cells)))
