"""Makes ICC profiles of RGB colour spaces from their primaries and their curve."""

import struct
from typing import NamedTuple

Point = tuple[float, float]
Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]
"""Three rows."""

_D50: Vector = (0.9642, 1.0, 0.8249)  # ICC.1:2022 section 7.2.16
_BRADFORD: Matrix = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
"""From XYZ to the responses of the eye (ICC.1:2022 annex E)."""
_ROUNDING = 0.001
_HEAD_BYTES, _ENTRY_BYTES = 128, 12


class Chromaticities(NamedTuple):
    """The CIE 1931 x and y of the primaries and of white."""

    red: Point
    green: Point
    blue: Point
    white: Point


class Curve(NamedTuple):
    """From a sample to light, both from 0 to 1: (a * x + b) ** gamma if x >= d, else c * x."""

    gamma: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0


def matrix_profile(primaries: Chromaticities, curve: Curve | list[int]) -> bytes:
    """An ICC profile with the few tags that a colour engine needs (ICC.1:2022 section 8.3.3).

    A list as curve has the light, from 0 to 65535, of evenly spaced samples.

    Raises:
        ValueError: the primaries or the curve are impossible.
    """
    try:
        points = [b"XYZ \0\0\0\0" + _fixed(*column) for column in _transposed(to_d50(primaries))]
        response = _curve_element(curve)
    except struct.error as error:
        raise ValueError("the description of its colours is impossible (primaries or gamma)") from error
    names = (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
    start = _HEAD_BYTES + 4 + _ENTRY_BYTES * len(names)
    places = [(start + 20 * number, 20) for number in range(3)] + [(start + 60, len(response))] * 3
    table = b"".join(struct.pack(">4sII", name, *place) for name, place in zip(names, places, strict=True))
    size = start + 60 + len(response)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x04400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head = (head + _fixed(*_D50)).ljust(_HEAD_BYTES, b"\0")
    return b"".join((head, struct.pack(">I", len(names)), table, *points, response))


def _curve_element(curve: Curve | list[int]) -> bytes:
    """A curve of the type curveType or parametricCurveType (ICC.1:2022 sections 10.6 and 10.18)."""
    if isinstance(curve, Curve):
        return b"para\0\0\0\0\0\3\0\0" + _fixed(*curve)
    return struct.pack(f">4s4xI{len(curve)}H", b"curv", len(curve), *curve)


def to_xyz(primaries: Chromaticities) -> Matrix:
    """From linear RGB to XYZ, where white has Y = 1.

    Raises:
        ValueError: the primaries are no triangle with white inside.
    """
    red, green, blue, white = (_xyz(point) for point in primaries)
    columns = _transposed((red, green, blue))
    scale = applied(inverse(columns), white)
    if min(scale) <= 0:
        raise ValueError("the description of its colours is impossible (white outside the primaries)")
    return _scaled(columns, scale)


def to_d50(primaries: Chromaticities) -> Matrix:
    """From linear RGB to XYZ with the white of ICC profiles, adapted with the Bradford method.

    Raises:
        ValueError: the primaries are no triangle with white inside.
    """
    white, wanted = applied(_BRADFORD, _xyz(primaries.white)), applied(_BRADFORD, _D50)
    if min(white) <= 0:
        raise ValueError("the description of its colours is impossible (white)")
    gains = (wanted[0] / white[0], wanted[1] / white[1], wanted[2] / white[2])
    adapted = product(_scaled(inverse(_BRADFORD), gains), _BRADFORD)
    return product(adapted, to_xyz(primaries))


def applied(matrix: Matrix, vector: Vector) -> Vector:
    x, y, z = vector
    first, second, third = (row[0] * x + row[1] * y + row[2] * z for row in matrix)
    return first, second, third


def product(one: Matrix, other: Matrix) -> Matrix:
    red, green, blue = (applied(one, column) for column in _transposed(other))
    return _transposed((red, green, blue))


def inverse(matrix: Matrix) -> Matrix:
    """The inverse by cofactors.

    Raises:
        ValueError: there is none.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        raise ValueError("the description of its colours is impossible (primaries)")
    cofactors: Matrix = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    scale = 1 / determinant
    return _scaled(cofactors, (scale, scale, scale))


def _xyz(point: Point) -> Vector:
    x, y = point
    if not (0 < y <= 1 and x >= 0 and x + y < 1 + _ROUNDING):
        raise ValueError("the description of its colours is impossible (primaries)")
    return x / y, 1.0, (1 - x - y) / y


def _scaled(matrix: Matrix, factors: Vector) -> Matrix:
    """The matrix with each column multiplied by its factor."""
    first, second, third = ((row[0] * factors[0], row[1] * factors[1], row[2] * factors[2]) for row in matrix)
    return first, second, third


def _transposed(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return (a, d, g), (b, e, h), (c, f, i)


def _fixed(*values: float) -> bytes:
    """Numbers of the type s15Fixed16 (ICC.1:2022 section 4.6)."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))
