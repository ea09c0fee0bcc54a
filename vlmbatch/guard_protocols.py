"""How the pipeline sees what guards it: the endpoints of a run, their slots and outages, and retries."""

from collections.abc import AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from vlmbatch.errors import BackendError, BadAnswerError, UnavailableError
from vlmbatch.protocols import Backend
from vlmbatch.records import Endpoint, Request


class Slots(Protocol):
    """How many requests may be in flight."""

    @property
    def limit(self) -> int:
        """How many may be in flight now."""

    @property
    def free(self) -> bool:
        """Whether slot() would give one at once."""

    @property
    def load(self) -> float:
        """Which share of the slots is taken, from 0 to 1."""

    @property
    def most(self) -> int:
        """How many may ever be in flight."""

    def slot(self, *, alone: bool = False) -> AbstractAsyncContextManager[None]:
        """Hold one slot inside the ``async with``; `alone` while nobody else holds one."""

    def answered(self) -> None:
        """Hear that a request was answered."""

    def overloaded(self) -> None:
        """Hear that the endpoint had too much: 429, 503, a timeout or a crash."""

    def queueing(self, waiting: int) -> None:
        """Hear that so many requests wait at the endpoint for others."""


class Outages(Protocol):
    """Whether the endpoint is there."""

    @property
    def up(self) -> bool:
        """Whether it is taken for up now."""

    @property
    def away(self) -> UnavailableError | None:
        """Why it is not there, as far as is known now; None while it is, or nobody has looked yet."""

    @property
    def downs(self) -> int:
        """How often so far nobody was there."""

    async def ready(self) -> None:
        """Wait until it is proven and taken for up; raises a BackendError that ends the run."""

    def answered(self) -> None:
        """Hear that it answered."""

    async def unavailable(self, error: UnavailableError, waits: int) -> None:
        """Return when it is worth asking again about an image that was turned away `waits` times.

        Raises UnavailableError when the endpoint stays away for too long.
        """

    async def failed(self, error: BackendError, image: str) -> None:
        """Hear that a request failed in passing; too many in a row pause the run until a probe succeeds."""

    async def again(self) -> None:
        """Go on looking whether it is there, after patience had ended; raises as ready() does."""


class PooledEndpoint(Protocol):
    """One endpoint of a run, with its own slots and outages."""

    @property
    def backend(self) -> Backend:
        """Who is asked."""

    @property
    def endpoint(self) -> Endpoint:
        """Who that is, as preflight found it."""

    @property
    def rank(self) -> int:
        """0 for those that are asked first, 1 and more for fallbacks."""

    @property
    def slots(self) -> Slots:
        """Its slots."""

    @property
    def outages(self) -> Outages:
        """Whether it is there."""


class EndpointPool(Protocol):
    """All endpoints of a run."""

    def turn(
        self, rank: int, look: Callable[[], bool], last: PooledEndpoint | None
    ) -> AbstractAsyncContextManager[PooledEndpoint]:
        """Hold a slot of the first endpoint that is there and free, of this rank if one is there.

        `look` is called before each look around, says whether nobody else may be asked meanwhile, and may
        raise; `last` is who was asked before, and another one is taken rather.

        Raises:
            BackendError: nobody is left to be asked.
        """

    @property
    def last_rank(self) -> int:
        """The rank of the last fallback."""

    def first_away(self) -> BackendError | None:
        """Why one of the first rank is not there, where none of them is."""

    def answered(self, lane: PooledEndpoint) -> None:
        """Hear that it answered."""

    async def unavailable(self, lane: PooledEndpoint, error: UnavailableError, waits: int) -> None:
        """Return when it is worth looking for somebody to ask again, after `waits` times in vain."""

    async def failed(self, lane: PooledEndpoint, error: BackendError, image: str) -> None:
        """Hear that a request about `image` failed in passing."""

    def closed(self, lane: PooledEndpoint, error: BackendError) -> None:
        """Hear that it will not take any image."""


class Retries(Protocol):
    """How often one image is asked about."""

    def attempts(
        self, on_retry: Callable[[int, float, BackendError], None], refunds: Callable[[], int]
    ) -> AbstractContextManager[AsyncIterable[AbstractContextManager[object]]]:
        """In a ``with``, tries until one succeeds; it waits between them and tells `on_retry` before it does.

        `refunds` says how many tries so far were the endpoint's loss and shall not count.
        """

    def ask_differently(self, request: Request, error: BadAnswerError, attempt: int) -> tuple[Request, str]:
        """The request to send after a bad answer to this attempt, and the warning that tells of it."""
