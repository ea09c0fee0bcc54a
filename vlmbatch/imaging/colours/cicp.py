"""Colour spaces by their code points (ITU-T H.273, "CICP"), as AVIF, HEIC and PNG name them."""

import functools
import struct
from typing import NamedTuple

from vlmbatch.imaging.colours.matrix_profile import Chromaticities, Curve, matrix_profile

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_BT601 = Chromaticities((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)
_UNSPECIFIED = 2
_TAGS, _ENTRY_BYTES, _MOST_TAGS = 132, 12, 64  # of an ICC profile (ICC.1:2022 section 7.3)

SRGB_PRIMARIES = Chromaticities((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
_PRIMARIES = {
    1: SRGB_PRIMARIES,
    _UNSPECIFIED: SRGB_PRIMARIES,
    4: Chromaticities((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Chromaticities((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: _BT601,
    7: _BT601,
    8: Chromaticities((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: Chromaticities((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: Chromaticities((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
"""Code points of H.273 table 2."""

SRGB_CURVE = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
PQ, HLG = 16, 18
# browsers show the curves of television (BT.709, BT.601, BT.2020) with sRGB's curve
_CURVES = dict.fromkeys((1, _UNSPECIFIED, 6, 11, 12, 13, 14, 15), SRGB_CURVE) | {
    4: Curve(2.2),
    5: Curve(2.8),
    7: Curve(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: Curve(1.0),
    17: Curve(2.6, (52.37 / 48) ** (1 / 2.6)),
}
"""Code points of H.273 table 3."""


class Cicp(NamedTuple):
    """Code points of H.273: colour primaries (table 2) and transfer characteristics (table 3)."""

    primaries: int
    transfer: int

    @property
    def chromaticities(self) -> Chromaticities | None:
        """None if the code point is not supported."""
        return _PRIMARIES.get(self.primaries)

    @property
    def is_hdr(self) -> bool:
        """Whether the samples may be brighter than white, and their space is supported."""
        return self.transfer in (PQ, HLG) and self.primaries in _PRIMARIES


@functools.lru_cache(maxsize=16)
def profile_of(cicp: Cicp) -> bytes | None:
    """The ICC profile of a space that is not HDR; None for sRGB.

    Raises:
        ValueError: a code point is not supported.
    """
    primaries, curve = _PRIMARIES.get(cicp.primaries), _CURVES.get(cicp.transfer)
    if primaries is None or curve is None:
        codes = f"primaries {cicp.primaries}, transfer {cicp.transfer}"
        raise ValueError(f"its colour space ({codes} of H.273) is not supported")
    return None if (primaries, curve) == (SRGB_PRIMARIES, SRGB_CURVE) else matrix_profile(primaries, curve)


def codes_of(profile: bytes) -> Cicp | None:
    """The code points that an ICC profile names beside its curves (ICC.1:2022 section 9.2.17); else None.

    The curves of such a profile for HDR are only a fallback: colour engines cut them at white.
    """
    table = profile[_TAGS : _TAGS + _ENTRY_BYTES * _MOST_TAGS]
    for name, start, _ in struct.iter_unpack(">4sII", table[: len(table) // _ENTRY_BYTES * _ENTRY_BYTES]):
        if name == b"cicp" and len(profile) >= start + 12:
            return Cicp(profile[start + 8], profile[start + 9])
    return None
