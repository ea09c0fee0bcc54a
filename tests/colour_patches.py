"""Pictures of a few colours in other colour spaces than sRGB, made with the numbers of the standards."""

import math

from pictures import Colour, encoded, sent
from PIL import Image

from vlmbatch.config.groups import ImageOptions
from vlmbatch.imaging.prepare import prepare

Light = tuple[float, ...]
"""Linear RGB, where 1 is white."""

COLOURS: tuple[Colour, ...] = (
    (220, 60, 40),
    (40, 180, 60),
    (40, 60, 220),
    (240, 220, 60),
    (245, 245, 245),
    (128, 128, 128),
)
# from linear sRGB; 2020 from ITU-R BT.2087, P3 from SMPTE EG 432-1, Adobe RGB from its specification
TO_P3 = ((0.8225, 0.1774, 0.0), (0.0332, 0.9669, 0.0), (0.0171, 0.0724, 0.9108))
TO_2020 = ((0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956))
TO_ADOBE = ((0.7152, 0.2848, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0412, 0.9588))
_PATCH = 40  # pixels a side
_ALL_QUALITY = ImageOptions(quality=100)


def light(colour: Colour) -> Light:
    """The light of an sRGB colour (IEC 61966-2-1)."""
    values = (value / 255 for value in colour)
    return tuple(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)


def srgb(value: float) -> float:
    """The sRGB sample of a light, 0 to 1."""
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def pq(value: float, white: float = 203) -> float:
    """The PQ signal of a light (SMPTE ST 2084)."""
    power = (value * white / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(display: Light, white: float = 203) -> Light:
    """The HLG signals of a light in BT.2020 on a display of 1000 cd/m2 (ITU-R BT.2100 table 5)."""
    shown = [value * white / 1000 for value in display]
    brightness = sum(v * weight for v, weight in zip(shown, (0.2627, 0.6780, 0.0593), strict=True))
    scene = [value / brightness ** (1 - 1 / 1.2) if brightness else 0.0 for value in shown]
    return tuple(
        math.sqrt(3 * e) if e <= 1 / 12 else 0.17883277 * math.log(12 * e - 0.28466892) + 0.55991073
        for e in scene
    )


def times(matrix: tuple[tuple[float, ...], ...], vector: Light) -> Light:
    return tuple(sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)


def samples(signals: Light) -> Colour:
    red, green, blue = (round(255 * min(max(value, 0), 1)) for value in signals)
    return red, green, blue


def patches(colours: list[Colour]) -> Image.Image:
    """A square of each colour, from left to right."""
    image = Image.new("RGB", (_PATCH * len(colours), _PATCH))
    for number, colour in enumerate(colours):
        image.paste(colour, (number * _PATCH, 0, (number + 1) * _PATCH, _PATCH))
    return image


def avif(image: Image.Image, primaries: int, transfer: int, **options: object) -> bytes:
    """An almost lossless AVIF that names its colour space by these code points of H.273 alone."""
    data = encoded(image, "AVIF", quality=100, subsampling="4:4:4", speed=10, **options)
    at = data.index(b"nclx") + 4
    return data[:at] + primaries.to_bytes(2, "big") + transfer.to_bytes(2, "big") + data[at + 4 :]


def shown(data: bytes, warnings: int = 0) -> list[Colour]:
    """The middle of each square as it is sent, after as many warnings."""
    prepared = prepare(data, _ALL_QUALITY)
    assert len(prepared.warnings) == warnings, prepared.warnings
    image = sent(prepared)
    return [image.getpixel((x, _PATCH // 2)) for x in range(_PATCH // 2, image.width, _PATCH)]  # type: ignore[misc]


def error(found: list[Colour], wanted: tuple[Colour, ...] = COLOURS) -> float:
    """The mean absolute difference, of 255."""
    pairs = [
        (a, b) for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True)
    ]
    return sum(abs(a - b) for a, b in pairs) / len(pairs)
