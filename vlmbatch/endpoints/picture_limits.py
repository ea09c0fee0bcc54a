"""How large pictures may be at each endpoint, learnt from its refusals for a full context."""

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.imaging.fitting import Misfit
from vlmbatch.imaging.tokens import Size

MOST_QUESTIONS = 100
"""An endpoint's limits are kept for this many questions; a session may have any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The pictures of a task, made smaller after a refusal of this endpoint.

    `pixels` is the new limit. `is_lasting` says that other pictures of the old size would not fit either.
    """

    endpoint: PooledEndpoint
    misfit: Misfit
    pixels: int
    is_lasting: bool


@dataclass(slots=True)
class PictureLimit:
    """The pixels that the pictures of one request may have: the proven limit, and the one that is tried now.

    `refused` is the size of a picture that did not fit.
    """

    refused: Size
    proven: int | None = None
    tried: int | None = None

    @property
    def pixels(self) -> int | None:
        """The lower of both; None if there is no limit."""
        return min((each for each in (self.proven, self.tried) if each is not None), default=None)


class PictureLimits:
    """The largest number of pixels that the pictures of one request may have, by endpoint and question.

    A question is known by its fingerprint: a longer prompt leaves less of the context for pictures. Threads
    may read the limits; only the event loop changes them.
    """

    def __init__(self, endpoints: Iterable[PooledEndpoint]) -> None:
        """`endpoints` may change later."""
        self._endpoints = endpoints
        self._limits = WeakKeyDictionary[PooledEndpoint, dict[str, PictureLimit]]()

    def of(self, endpoint: PooledEndpoint, question: str) -> int | None:
        """The limit at this endpoint; None if all pictures have fitted so far."""
        limit = self._limits.get(endpoint, {}).get(question)
        return None if limit is None else limit.pixels

    def everywhere(self, question: str) -> int | None:
        """The highest limit of the endpoints of the first rank; None if one of them has no limit."""
        firsts = [each for each in self._endpoints if each.rank == 0 and not each.is_closed]
        limits = [self.of(each, question) for each in firsts]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    def try_out(self, endpoint: PooledEndpoint, question: str, pixels: int, refused: Size) -> None:
        """A picture was refused: until this limit is proven or withdrawn, no larger picture is sent."""
        limits = self._limits.setdefault(endpoint, {})
        limit = limits.setdefault(question, PictureLimit(refused=refused))
        limit.tried = min(pixels, limit.tried or pixels)
        if len(limits) > MOST_QUESTIONS:
            del limits[next(iter(limits))]

    def prove(self, endpoint: PooledEndpoint, question: str) -> PictureLimit | None:
        """An image that was refused before was answered; returns the limit if that is its first proof."""
        limit = self._limits.get(endpoint, {}).get(question)
        if limit is None or limit.tried is None:
            return None
        is_first = limit.proven is None
        limit.proven, limit.tried = min(limit.tried, limit.proven or limit.tried), None
        return limit if is_first else None

    def withdraw(self, endpoint: PooledEndpoint, question: str) -> None:
        """An image has failed in any size, so its refusals say nothing about other images."""
        limit = self._limits.get(endpoint, {}).get(question)
        if limit is not None:
            limit.tried = None
