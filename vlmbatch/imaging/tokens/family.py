"""What a family of vision models is: what a picture of some sides costs it, and which size to send.

It knows no single family (patches.py, tiles.py, slices.py), no names (names.py) and no pictures. Sizes are
(width, height) in pixels, as the picture is seen upright.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Size = tuple[int, int]

LONGEST = 1024
"""The longest side in pixels whose cost is the limit where no budget is given: the default of --max-size."""
NEARLY = 31 / 32
"""A size is nearly another one when its sides are at least this part of the other's."""
MUCH_CHEAPER = 4 / 5
"""Nearly the same size is taken where it costs at most this part of the tokens."""


class Rule(Protocol):
    """How the processor of a model looks at a picture."""

    def tokens(self, size: Size) -> int:
        """How many tokens a picture of this size costs."""
        ...

    def sees_all(self, size: Size) -> bool:
        """Whether it looks at the picture at its full size, and does not shrink it first."""
        ...

    def sizes(self, size: Size) -> Iterator[Size]:
        """The sizes worth sending for such a picture; none is larger, and the model sees all of each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that look at pictures in the same way."""

    name: str
    rule: Rule

    def tokens(self, size: Size) -> int:
        """How many tokens a picture of this size costs, with the marks that docs/image-tokens.md tells of."""
        return self.rule.tokens(size)

    def target(self, size: Size, budget: int | None = None) -> Size:
        """The size to send for a picture of this size: the largest that costs at most `budget` tokens.

        Without a budget the limit is what the picture costs with a longest side of 1024 pixels.

        A picture that is within the limit, and that the model sees all of, stays as it is, unless nearly the
        same size is much cheaper. It is never enlarged. Its aspect is kept to a pixel, or to the patch
        where the model works in whole patches, or squeezed by 1/32 where that saves a row of tiles.
        What the model would shrink by itself is not sent, but where a rounded aspect makes all other
        sizes dearer: then it is the size with the usual longest side.

        A family that cannot go down to the budget gets the largest size of those that cost it least, so
        whoever must keep to a budget looks at what the answer costs.
        """
        costs = self._costs(size)
        affordable = [s for s in costs if costs[s] <= (self._usual(size, s) if budget is None else budget)]
        if not affordable and budget is None:
            usual = _usual_size(size)
            return size if usual == size else self.target(usual)
        least = min(costs.values())
        chosen = max(affordable or [s for s in costs if costs[s] == least], key=_area)
        while (cheaper := self._step_below(chosen)) is not None:
            chosen = cheaper
        return chosen

    def _costs(self, size: Size) -> dict[Size, int]:
        """The sizes that might be sent for a picture, and what each costs."""
        sizes = dict.fromkeys((size, *self.rule.sizes(size)))
        return {s: self.tokens(s) for s in sizes if self.rule.sees_all(s)}

    def _usual(self, *sizes: Size) -> int:
        """What the cheapest of these would cost with the usual longest side.

        What is sent has to be within its own limit, too, which is not quite that of the picture where its
        aspect was rounded: what was sent once would else be shrunk again.
        """
        return min(self.tokens(_usual_size(size)) for size in sizes)

    def _step_below(self, size: Size) -> Size | None:
        """Nearly the same size, if there is one that is much cheaper."""
        costs = self._costs(size)
        below = [s for s in costs if _is_nearly(s, size) and costs[s] <= MUCH_CHEAPER * costs[size]]
        return max(below, key=_area, default=None)


def within(size: Size, box: Size) -> Size:
    """The size shrunk into a box, aspect kept to half a pixel; never enlarged."""
    width, height = size
    if width <= box[0] and height <= box[1]:
        return size
    if width * box[1] >= height * box[0]:
        return box[0], max(1, round(height * box[0] / width))
    return max(1, round(width * box[1] / height)), box[1]


def of_area(size: Size, pixels: int) -> Size:
    """The size shrunk to at most so many pixels, aspect kept to a pixel; never enlarged."""
    scale = math.sqrt(pixels / (size[0] * size[1]))
    return size if scale >= 1 else (max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale)))


def _usual_size(size: Size) -> Size:
    return within(size, (LONGEST, LONGEST))


def _area(size: Size) -> tuple[int, Size]:
    return size[0] * size[1], size


def _is_nearly(smaller: Size, size: Size) -> bool:
    return all(NEARLY * side <= other for other, side in zip(smaller, size, strict=True))
