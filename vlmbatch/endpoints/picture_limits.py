"""How large pictures may be at each endpoint: what its refusals for a full context have shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.imaging.fitting import Misfit

MOST_QUESTIONS = 100
"""An endpoint's limits are kept for this many questions; a session may have any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The pictures of a task, made smaller after a refusal of this endpoint.

    `before` is the size of the largest picture that did not fit. `is_lasting` says that other pictures of
    that size would not fit either.
    """

    endpoint: PooledEndpoint
    misfit: Misfit
    before: tuple[int, int]
    pixels: int
    is_lasting: bool


@dataclass(slots=True)
class PictureLimit:
    """The pixels that the pictures of one request may have: proven by an answer, and tried at the moment."""

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
        """The limit that all endpoints of the first rank have at least; None if one has none."""
        firsts = [each for each in self._endpoints if each.rank == 0 and not each.is_closed]
        limits = [self.of(each, question) for each in firsts]
        known = [limit for limit in limits if limit is not None]
        return max(known) if known and len(known) == len(limits) else None

    def try_out(self, endpoint: PooledEndpoint, question: str, pixels: int) -> None:
        """A picture was refused: until this size is proven or withdrawn, no larger picture is sent."""
        limit = self._limit(endpoint, question)
        limit.tried = min(pixels, limit.tried or pixels)

    def prove(self, endpoint: PooledEndpoint, question: str, pixels: int) -> bool:
        """A picture of this size was answered; returns whether it is the first one for this question."""
        limit = self._limit(endpoint, question)
        is_first = limit.proven is None
        limit.proven, limit.tried = min(pixels, limit.proven or pixels), None
        return is_first

    def withdraw(self, endpoint: PooledEndpoint, question: str) -> None:
        """The image has failed in any size, so its refusals say nothing about other images."""
        self._limit(endpoint, question).tried = None

    def _limit(self, endpoint: PooledEndpoint, question: str) -> PictureLimit:
        limits = self._limits.setdefault(endpoint, {})
        limit = limits.setdefault(question, PictureLimit())
        if len(limits) > MOST_QUESTIONS:
            del limits[next(iter(limits))]
        return limit
