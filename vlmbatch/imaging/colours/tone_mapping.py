"""Maps HDR pictures (PQ and HLG), whose samples may be brighter than white, to sRGB."""

import functools
import math
from array import array
from collections.abc import Callable

from PIL import Image, ImageFilter

from vlmbatch.imaging.colours.cicp import PQ, SRGB_PRIMARIES, Cicp
from vlmbatch.imaging.colours.matrix_profile import (
    Chromaticities,
    Vector,
    applied,
    inverse,
    matrix_profile,
    product,
    to_d50,
    to_xyz,
)
from vlmbatch.imaging.colours.plain import to_srgb

_WHITE = 203.0  # cd/m2 of white paper (ITU-R BT.2408 section 2.1)
_PQ_PEAK = 10_000.0  # cd/m2
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # BT.2100 table 4
_HLG_PEAK, _HLG_GAMMA = 1_000.0, 1.2  # cd/m2 of a display, and its gamma (BT.2100 table 5)
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073  # BT.2100 table 5

_EXACT = 1.06
"""A picture whose peak is at most so many times white is not compressed; one step of 8 bits has 3 %."""
_BRIGHTEST_SHARE = 0.001
"""The share of the pixels that may be brighter than the peak: glints, and overshoot at edges."""
_PEAK_CODES = 4  # peaks are rounded up to so many steps of 8 bits, so that pictures share tables
_STEPS = 33


def to_sdr(image: Image.Image, space: Cicp, warnings: list[str]) -> Image.Image:
    """The RGB or RGBA picture in sRGB, with white at 203 cd/m2, as ITU-R BT.2408 says.

    Colours up to white are exact, and those outside sRGB are clipped. If a picture is brighter than that, its
    bright tones are compressed until its own peak is white, which adds a warning.
    """
    colours = image.convert("RGB")
    code = _peak_code(colours)
    peak = _light(space.transfer, code / 255)
    if peak > _WHITE * _EXACT:
        warnings.append(f"HDR: tones brighter than white, up to {_rounded(peak)} cd/m2, were compressed")
        code = min(math.ceil(code / _PEAK_CODES) * _PEAK_CODES, 255)
    else:
        code = 0
    if space.transfer == PQ:
        colours = to_srgb(colours, _pq_profile(space, code), warnings)
    else:
        colours = colours.filter(_hlg_table(space, code))
    if image.mode == "RGBA":
        colours.putalpha(image.getchannel("A"))
    return colours


def _rounded(light: float) -> str:
    return f"{float(f'{light:.2g}'):,.0f}"


def _peak_code(image: Image.Image) -> int:
    """The largest sample, without those of the few brightest pixels."""
    histogram = image.histogram()
    allowed = image.width * image.height * _BRIGHTEST_SHARE
    for code in range(255, 0, -1):
        counts = (sum(histogram[channel * 256 + code : channel * 256 + 256]) for channel in range(3))
        if max(counts) > allowed:
            return code
    return 0


@functools.lru_cache(maxsize=16)
def _pq_profile(space: Cicp, code: int) -> bytes:
    """The profile of a PQ picture, in which grey of the peak `code` is white; 0 compresses nothing."""
    compressed = _compression(space.transfer, code)
    lights = (min(compressed(_pq_light(sample / 255) / _WHITE), 1.0) for sample in range(256))
    return matrix_profile(_primaries(space), [round(light * 65535) for light in lights])


@functools.lru_cache(maxsize=16)
def _hlg_table(space: Cicp, code: int) -> ImageFilter.Color3DLUT:
    """The same for HLG, where each channel depends on all three, as a table from samples to sRGB."""
    compressed = _compression(space.transfer, code)
    primaries = _primaries(space)
    matrix = product(inverse(to_d50(SRGB_PRIMARIES)), to_d50(primaries))
    luminance = to_xyz(primaries)[1]
    lights = [_hlg_scene_light(number / (_STEPS - 1)) for number in range(_STEPS)]
    table = array("f")  # a list would take eight times its memory
    for blue in lights:
        for green in lights:
            for red in lights:
                gain = _hlg_gain((red, green, blue), luminance) / _WHITE
                colour = compressed(red * gain), compressed(green * gain), compressed(blue * gain)
                table.extend(map(_encoded, applied(matrix, colour)))
    return ImageFilter.Color3DLUT(_STEPS, table, _copy_table=False)


def _primaries(space: Cicp) -> Chromaticities:
    return space.chromaticities or SRGB_PRIMARIES


def _compression(transfer: int, code: int) -> Callable[[float], float]:
    """The curve for the light of a channel, relative to white: a line, and then a hyperbola to the peak.

    The line is as long as in ITU-R BT.2390 section 5.4.1, whose spline keeps less of the brightest tones.
    """
    if code == 0:
        return lambda light: light
    peak = _light(transfer, code / 255)
    knee = _pq_light(max(1.5 * _pq(_WHITE) - 0.5 * _pq(peak), 0)) / _WHITE
    room = 1 - knee
    bend = 1 - room / (peak / _WHITE - knee)

    def compressed(light: float) -> float:
        above = (light - knee) / room
        return light if above <= 0 else knee + room * above / (1 + above * bend)

    return compressed


def _light(transfer: int, signal: float) -> float:
    """The cd/m2 of grey."""
    if transfer == PQ:
        return _pq_light(signal)
    return _HLG_PEAK * float(_hlg_scene_light(signal) ** _HLG_GAMMA)


def _pq_light(signal: float) -> float:
    """From the signal, 0 to 1, to cd/m2 (SMPTE ST 2084)."""
    root = signal ** (1 / _M2)
    return _PQ_PEAK * float((max(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _pq(light: float) -> float:
    """The inverse of _pq_light()."""
    power = (light / _PQ_PEAK) ** _M1
    return float(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _hlg_scene_light(signal: float) -> float:
    """From the signal to the light of the scene, both 0 to 1 (the inverse OETF of ITU-R BT.2100 table 5)."""
    return signal**2 / 3 if signal <= 0.5 else (math.exp((signal - _C) / _A) + _B) / 12


def _hlg_gain(light: Vector, luminance: Vector) -> float:
    """From the light of the scene to cd/m2 of the display (OOTF of ITU-R BT.2100 table 5)."""
    brightness = sum(value * weight for value, weight in zip(light, luminance, strict=True))
    return float(_HLG_PEAK * brightness ** (_HLG_GAMMA - 1)) if brightness > 0 else 0.0


def _encoded(light: float) -> float:
    """The sRGB curve (IEC 61966-2-1), continued below 0 and above 1, so that interpolation is exact there."""
    size = abs(light)
    return math.copysign(12.92 * size if size <= 0.0031308 else 1.055 * size ** (1 / 2.4) - 0.055, light)
