"""A family of vision models: the tokens that a picture of some size costs, and the size to send.

Single families are in patches.py, tiles.py and slices.py, names of models in names.py. Sizes are
(width, height) in pixels of the upright picture.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Size = tuple[int, int]

LONGEST = 1024
"""The longest side in pixels whose cost is the limit without a budget: the default of --max-size."""
NEARLY = 31 / 32
"""A size is nearly another one if its sides are at least this fraction of the other's."""
MUCH_CHEAPER = 4 / 5
"""Nearly the same size is chosen if it costs at most this fraction of the tokens."""


class Rule(Protocol):
    """The rule by which the processor of a model turns a picture into tokens."""

    def tokens(self, size: Size) -> int:
        """The number of tokens that a picture of this size costs."""
        ...

    def sees_all(self, size: Size) -> bool:
        """Whether the processor uses the picture at its full size and does not shrink it first."""
        ...

    def sizes(self, size: Size) -> Iterator[Size]:
        """The sizes worth sending for such a picture; none is larger, and the model uses all of each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that process pictures in the same way."""

    name: str
    rule: Rule

    def tokens(self, size: Size) -> int:
        """The number of tokens that a picture of this size costs, with the marks of docs/image-tokens.md."""
        return self.rule.tokens(size)

    def target(self, size: Size, budget: int | None = None) -> Size:
        """The size to send for a picture of this size: the largest that costs at most `budget` tokens.

        Without a budget, the limit is the cost of the picture with a longest side of 1024 pixels.

        A picture within the limit that the model does not shrink stays unchanged, unless nearly the same size
        is much cheaper. A picture is never enlarged. Its aspect is kept to a pixel, or to the patch if the
        model works in whole patches; it is squeezed by up to 1/32 if that saves a row of tiles. A size that
        the model would shrink is not sent, unless a rounded aspect makes all other sizes more expensive: then
        the size with the usual longest side is sent.

        If no size keeps the budget, the result is the largest of those that cost least; the caller compares
        its cost with the budget.
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
        """The candidate sizes for a picture, with their costs."""
        sizes = dict.fromkeys((size, *self.rule.sizes(size)))
        return {s: self.tokens(s) for s in sizes if self.rule.sees_all(s)}

    def _usual(self, *sizes: Size) -> int:
        """The cost of the cheapest of these with the usual longest side.

        The size that is sent must be within its own limit, too. That limit differs slightly from the limit of
        the picture if the aspect was rounded, and a picture that was sent once would be shrunk again.
        """
        return min(self.tokens(_usual_size(size)) for size in sizes)

    def _step_below(self, size: Size) -> Size | None:
        """A size that is nearly the same and much cheaper, or None."""
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
    """The size shrunk to at most this many pixels, aspect kept to a pixel; never enlarged."""
    scale = math.sqrt(pixels / (size[0] * size[1]))
    return size if scale >= 1 else (max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale)))


def _usual_size(size: Size) -> Size:
    return within(size, (LONGEST, LONGEST))


def _area(size: Size) -> tuple[int, Size]:
    return size[0] * size[1], size


def _is_nearly(smaller: Size, size: Size) -> bool:
    return all(NEARLY * side <= other for other, side in zip(smaller, size, strict=True))
