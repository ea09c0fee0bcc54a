"""Reads the colour space that a PNG names without an ICC profile."""

from typing import Any

from vlmbatch.imaging.colours.cicp import SRGB_CURVE, SRGB_PRIMARIES, Cicp
from vlmbatch.imaging.colours.matrix_profile import Chromaticities, Curve, matrix_profile

_SIGNATURE_BYTES = 8
_MOST_CHUNKS = 1_000  # that are searched; Pillow keeps the contents of each
_RGB, _FULL_RANGE = 0, 1  # the values that all pictures have in the last two bytes of cICP

_SRGB_GAMMA = 1 / 2.2
_SAME_GAMMA = 0.05  # the share that libpng ignores (PNG_GAMMA_THRESHOLD)
_SAME_POINT = 0.005
_LEAST_GAMMA, _MOST_GAMMA = 0.1, 10.0


def cicp_of(data: bytes) -> Cicp | None:
    """The code points in the chunk cICP (PNG, third edition, section 11.3.2.6); None if it has none.

    Raises:
        ValueError: the samples are not RGB of full range, and Pillow does not convert them.
    """
    at = _SIGNATURE_BYTES
    for _ in range(_MOST_CHUNKS):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in (b"IDAT", b""):
            return None
        if kind == b"cICP" and size == 4 and at + 12 <= len(data):
            primaries, transfer, *rest = data[at + 8 : at + 12]
            if rest != [_RGB, _FULL_RANGE]:
                raise ValueError("its cICP chunk says that its pixels are not RGB of full range")
            return Cicp(primaries, transfer)
        at += size + 12
    return None


def profile_of(info: dict[Any, Any]) -> bytes | None:
    """The ICC profile of a PNG by its chunks gAMA and cHRM; None if they are missing or say sRGB.

    `info` is Pillow's, and holds neither an ICC profile nor the chunk sRGB, which have precedence.

    Raises:
        ValueError: the chunks are impossible.
    """
    gamma, points = info.get("gamma"), info.get("chromaticity")
    curve, primaries = SRGB_CURVE, SRGB_PRIMARIES
    if gamma is not None and abs(gamma / _SRGB_GAMMA - 1) > _SAME_GAMMA:
        if not _LEAST_GAMMA <= gamma <= _MOST_GAMMA:
            raise ValueError(f"the description of its colours is impossible (gamma {gamma:g})")
        curve = Curve(1 / gamma)
    if points is not None:
        white, red, green, blue = zip(points[::2], points[1::2], strict=True)
        said = Chromaticities(red, green, blue, white)
        if _differs(said):
            primaries = said
    return None if (primaries, curve) == (SRGB_PRIMARIES, SRGB_CURVE) else matrix_profile(primaries, curve)


def _differs(said: Chromaticities) -> bool:
    pairs = zip(sum(said, ()), sum(SRGB_PRIMARIES, ()), strict=True)
    return any(abs(one - other) > _SAME_POINT for one, other in pairs)
