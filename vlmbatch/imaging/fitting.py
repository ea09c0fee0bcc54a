"""Computes how large pictures may be that did not fit into a model's context; works on numbers only."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vlmbatch.errors import Overflow
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.sizing import Sizing
from vlmbatch.records import Request

QUARTER = 1 / 4
"""The share of the pixels that is tried if nothing better is known: half of each side."""
LEAST_SHARE = 1 / 64
MARGIN = 0.95
"""Models round the sides of a picture up to whole patches."""
LEAST_PIXELS = 32 * 32
"""No picture is made smaller than this."""
REDUCED = "sent smaller than the options say, since a larger picture does not fit at this endpoint"
BYTES_A_TOKEN = 3
TEMPLATE_TOKENS = 40
"""The tokens that a chat template adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Pictures of a request that did not fit: their pixels together, and the sizes in tokens, if known."""

    pixels: int
    overflow: Overflow | None = None


def pixels_of(pictures: Iterable[PreparedImage]) -> int:
    """The pixels of these pictures together."""
    return sum(picture.width * picture.height for picture in pictures)


def marked(picture: PreparedImage, usual: Sizing) -> PreparedImage:
    """The picture, with a warning if it is smaller than `usual` would have made it."""
    width, height = usual((picture.original_width, picture.original_height))
    if picture.width * picture.height >= width * height:
        return picture
    return replace(picture, is_reduced=True, warnings=(*picture.warnings, REDUCED))


def fitting_pixels(misfit: Misfit, request: Request, before: Misfit | None = None) -> int:
    """The pixels that the pictures of this request may have together, so that it fits into the context.

    `before` is an earlier misfit of the same request with larger pictures, from which more is known.
    """
    share = _share(misfit, request, before)
    if before is not None:  # the first estimate was too high
        share = min(share, 3 / 4)
    return max(int(misfit.pixels * share), LEAST_PIXELS * len(request.images))


def _share(misfit: Misfit, request: Request, before: Misfit | None) -> float:
    """The share of their pixels at which the pictures fit."""
    overflow = misfit.overflow
    if overflow is None:
        return QUARTER
    answer = overflow.output_tokens
    if answer is None:
        answer = min(request.generation.max_tokens, overflow.context // 4)
    text = _text_tokens(misfit, request, before)
    room, taken = overflow.context - answer - text, overflow.input_tokens - text
    share = MARGIN * room / taken if taken > 0 else QUARTER
    if not LEAST_SHARE <= share < 1:  # the estimate is useless, or the prompt alone fills the context
        return QUARTER
    return min(share, QUARTER) if overflow.at_least else share


def _text_tokens(misfit: Misfit, request: Request, before: Misfit | None) -> int:
    """The tokens of the request without its pictures: from two sizes, else estimated by its length."""
    now, earlier = misfit.overflow, None if before is None else before.overflow
    if now is not None and before is not None and earlier is not None:
        tokens, pixels = earlier.input_tokens - now.input_tokens, before.pixels - misfit.pixels
        if tokens > 0 and pixels > 0:
            text = now.input_tokens - round(misfit.pixels * tokens / pixels)
            if text >= 0:
                return text
    written = len(request.prompt.encode()) + len((request.system or "").encode())
    return written // BYTES_A_TOKEN + TEMPLATE_TOKENS
