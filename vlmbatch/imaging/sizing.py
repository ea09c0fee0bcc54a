"""Which size a picture is sent in: as the options allow, and as it suits the model; knows no pixels."""

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
    """A function of sizes, (width, height) in pixels, as the picture is seen upright.

    `longest` is the longest side, 0 for none; `pixels` bounds the area; a `family` is sent what wastes none
    of its tokens, at most `tokens` of them, or what a longest side of 1024 costs.
    """

    longest: int = 0
    pixels: int | None = None
    family: Family | None = None
    tokens: int | None = None

    def __call__(self, size: Size) -> Size:
        """The size to send for a picture of this size; never larger, and its aspect kept."""
        return _sized(self, size)

    def at_most(self, longest: int) -> Self:
        """The same with a longest side of at most so many pixels."""
        return replace(self, longest=min(self.longest or longest, longest))

    @property
    def is_symmetric(self) -> bool:
        """Whether a picture that lies gets the size of one that stands, turned."""
        return self.family is None

    @property
    def least_tokens(self) -> int:
        """What a common picture costs when it costs as little as this allows; 0 where that is not known."""
        return 0 if self.family is None else self.family.tokens(self(_COMMON))


def sizing_of(options: ImageOptions, model: str = "", architecture: str | None = None) -> Sizing:
    """The sizing that the options ask for, for this model; `architecture` is what its endpoint calls that.

    Raises:
        ConfigError: --image-tokens, and nobody knows how this model counts them.
    """
    by_model = options.max_size == AUTO or options.image_tokens is not None
    family = _family(model, architecture) if by_model else None
    if options.image_tokens is not None and model and family is None:
        raise ConfigError(
            f"how {model} counts the tokens of pictures is not known; "
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
    """The family by either; vLLM tells of a model's real name, too, where it was given another."""
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
    """The size by the tighter of both limits; to be rounded twice would cost its aspect a pixel."""
    longest = max(size)
    width, height = size
    if 0 < sizing.longest < longest:
        width, height = (max(1, round(side * sizing.longest / longest)) for side in size)
    if sizing.pixels is not None and width * height > sizing.pixels:
        return of_area(size, sizing.pixels)
    return width, height
