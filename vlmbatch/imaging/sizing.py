"""Computes the size at which a picture is sent, from the options and the model; works on sizes only."""

import functools
from dataclasses import dataclass, replace
from typing import Self

from vlmbatch.config.groups import USUAL_SIDE, ImageOptions
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import ConfigError
from vlmbatch.imaging.tokens import Family, Size, family_of
from vlmbatch.imaging.tokens.family import of_area


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """A function from a size to the size to send, (width, height) in pixels of the upright picture.

    `longest` limits the longest side, 0 for no limit; `pixels` limits the area. With a `family` the size
    wastes none of its tokens and costs at most `tokens` of them, or as many as a longest side of 1024.
    """

    longest: int = 0
    pixels: int | None = None
    family: Family | None = None
    tokens: int | None = None

    def __call__(self, size: Size) -> Size:
        """The size to send for a picture of this size; never larger, with the same aspect."""
        return _sized(self, size)

    def within(self, pixels: int) -> Self:
        """The same sizing with an area of at most this many pixels."""
        return replace(self, pixels=min(self.pixels or pixels, pixels))

    @property
    def is_symmetric(self) -> bool:
        """Whether a landscape picture gets the size of the portrait one with its sides swapped."""
        return self.family is None

    @property
    def least_tokens(self) -> int:
        """The tokens that a common picture costs with this sizing; 0 if the family is not known."""
        return 0 if self.family is None else self.family.tokens(self(_COMMON))


def sizing_of(options: ImageOptions, model: str = "", architecture: str | None = None) -> Sizing:
    """The sizing for these options and this model; `architecture` is the one that the endpoint reports.

    Raises:
        ConfigError: --image-tokens is set, and it is not known how this model counts them.
    """
    by_model = options.max_size == AUTO or options.image_tokens is not None
    family = _family(model, architecture) if by_model else None
    if options.image_tokens is not None and model and family is None:
        raise ConfigError(
            f"vlmbatch does not know how {model} counts image tokens; "
            "use --max-size or --max-pixels instead of --image-tokens (docs/image-tokens.md)"
        )
    return Sizing(
        longest=_longest(options, family),
        pixels=options.max_pixels,
        family=family,
        tokens=options.image_tokens,
    )


_COMMON = (4000, 3000)


def _family(model: str, architecture: str | None) -> Family | None:
    """The family by name or architecture; vLLM reports the model's real name there if it serves an alias."""
    return family_of(model, architecture) or family_of(architecture or "")


def _longest(options: ImageOptions, family: Family | None) -> int:
    if options.max_size is None:
        limited = options.max_pixels is not None or options.image_tokens is not None
        return 0 if limited else USUAL_SIDE
    if options.max_size == AUTO:
        return USUAL_SIDE if family is None else 0
    return options.max_size


# the photos of a folder have few sizes, and a family may look at hundreds for each
@functools.lru_cache(maxsize=4096)
def _sized(sizing: Sizing, size: Size) -> Size:
    size = _limited(sizing, size)
    return size if sizing.family is None else sizing.family.target(size, sizing.tokens)


def _limited(sizing: Sizing, size: Size) -> Size:
    """The size within both limits. Rounding twice would change the aspect by a pixel."""
    longest = max(size)
    width, height = size
    if 0 < sizing.longest < longest:
        width, height = (max(1, round(side * sizing.longest / longest)) for side in size)
    if sizing.pixels is not None and width * height > sizing.pixels:
        area = of_area(size, sizing.pixels)  # its longest side may be a pixel above the limit
        return min(width, area[0]), min(height, area[1])
    return width, height
