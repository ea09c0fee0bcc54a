"""Colours told by the code points of ITU-T H.273: primaries, PQ and HLG, from sRGB and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.pictures import Picture, Values, picture

SRGB, PQ, HLG, LINEAR = 13, 16, 18, 8
"""Transfer characteristics (H.273 table 3)."""
BT709, BT2020, P3 = 1, 9, 12
"""Colour primaries (H.273 table 2)."""
_XY = {
    BT709: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)
_WHITE, _PEAK = 203.0, 1000.0
"""cd/m2 of the white of a page (ITU-R BT.2408), and of the display that HLG is graded on."""
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_GAMMA = 1.2
_LUMA_2020 = np.array((0.2627, 0.6780, 0.0593))
Numbers = NDArray[np.float64]


def _to_xyz(primaries: int) -> Numbers:
    def xyz(x: float, y: float) -> tuple[float, float, float]:
        return x / y, 1.0, (1 - x - y) / y

    corners = np.array([xyz(*point) for point in _XY[primaries]]).T
    weights: Numbers = np.linalg.solve(corners, np.array(xyz(*_D65)))
    return corners * weights


def linear(srgb: Values) -> Values:
    """Light from 0 to 1 of sRGB values (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb(light: Values) -> Values:
    """The inverse of `linear`."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def coded(values: Values, primaries: int, transfer: int) -> Values:
    """Signal values from 0 to 1 that show these sRGB values, whose white is that of a page."""
    light = linear(values) @ (np.linalg.inv(_to_xyz(primaries)) @ _to_xyz(BT709)).T
    light = np.clip(light, 0, None)
    if transfer == PQ:
        power = (light * _WHITE / 10_000) ** _M1
        return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    if transfer == HLG:
        shown = light * _WHITE / _PEAK
        luma = np.maximum(shown @ _LUMA_2020, 1e-9)[..., None]
        scene = shown * luma ** (1 / _GAMMA - 1)
        return np.where(
            scene <= 1 / 12, np.sqrt(3 * scene), _A * np.log(np.maximum(12 * scene - _B, 1e-9)) + _C
        )
    return srgb(light) if transfer == SRGB else light


def seen(signal: NDArray[Any], primaries: int, transfer: int) -> Picture:
    """What an sRGB display shows of signal values."""
    if transfer == PQ:
        power = np.maximum(signal, 0) ** (1 / _M2)
        light = (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1) * 10_000 / _WHITE
    elif transfer == HLG:
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12)
        luma = np.maximum(scene @ _LUMA_2020, 1e-9)[..., None]
        light = scene * luma ** (_GAMMA - 1) * _PEAK / _WHITE
    else:
        light = linear(signal) if transfer == SRGB else signal
    light = light @ (np.linalg.inv(_to_xyz(BT709)) @ _to_xyz(primaries)).T
    return picture(srgb(np.clip(light, 0, 1)))
