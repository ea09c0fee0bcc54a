"""Draws pictures that no server has seen before, for measurements."""

import random
from dataclasses import replace

from PIL import Image, ImageDraw, ImageOps
from pybase64 import b64decode, b64encode

from vlmbatch.images import PreparedImage
from vlmbatch.imaging.encode import encode

USUAL_SIZE = (1024, 768)
"""The size in pixels of a photo that a run sends with its default options."""
SHAPES = 250
QUALITY = 85
FACTORS = 20
VARIANTS = 2**FACTORS
"""How many different pictures `Varied` makes of one picture."""
_TABLE = b"\xff\xdb"
_BEFORE_FACTORS = (
    len(_TABLE) + 4
)  # the length of the segment, the number of the table, the factor of the mean


def drawn_scene(number: int) -> bytes:
    """A JPEG of 1024x768 pixels with hundreds of coloured shapes; the same number gives the same picture."""
    dice = random.Random(number)
    light, dark = _colour(dice), _colour(dice)
    picture = ImageOps.colorize(Image.linear_gradient("L").resize(USUAL_SIZE), dark, light)
    draw = ImageDraw.Draw(picture)
    for _ in range(SHAPES):
        x, y = (dice.randrange(side) for side in USUAL_SIZE)
        box = (x, y, x + dice.randint(4, 160), y + dice.randint(4, 160))
        shape = dice.choice((draw.ellipse, draw.rectangle, draw.line))
        shape(box, fill=_colour(dice))
    return encode(picture, QUALITY)


def _colour(dice: random.Random) -> tuple[int, int, int]:
    return dice.randrange(256), dice.randrange(256), dice.randrange(256)


class Varied:
    """Makes many pictures of one that differ in almost all pixels, without encoding it again.

    A JPEG holds a table of factors by which its contents are multiplied. Each variant has other factors,
    larger by 1 at most. This takes microseconds, so that a measurement does not wait for it.
    """

    def __init__(self, picture: PreparedImage) -> None:
        """`picture` is a JPEG, as prepare() makes it."""
        jpeg = b64decode(picture.data)
        self._picture = picture
        self._first = jpeg.index(_TABLE) + _BEFORE_FACTORS
        cut = -(-(self._first + FACTORS) // 3) * 3  # base64 encodes three bytes at a time
        self._head, self._rest = jpeg[:cut], b64encode(jpeg[cut:])

    def variant(self, number: int) -> PreparedImage:
        """The variant of this number; different from all others below VARIANTS."""
        head = bytearray(self._head)
        for place in range(FACTORS):
            if number >> place & 1:
                head[self._first + place] += 1 if head[self._first + place] < 255 else -1
        return replace(self._picture, data=b64encode(head) + self._rest)
