"""One endpoint of a pool: its backend, its limiter, its circuit breaker, and how far it has come."""

from vlmbatch.endpoints.circuit_breaker import CircuitBreaker
from vlmbatch.endpoints.in_flight import InFlight
from vlmbatch.endpoints.limiter import Limiter
from vlmbatch.errors import BackendError, FatalBackendError
from vlmbatch.protocols import Backend
from vlmbatch.records import Endpoint, Load


class PooledEndpoint:
    """One endpoint of a pool, and its state:

    - identified: its preflight has found its model, and it has a limiter;
    - proven: its canary was answered;
    - open: proven, its circuit breaker is up, and it is neither lost nor leaving; it takes requests;
    - down: its circuit breaker holds its requests back until a probe succeeds; `away` says why;
    - lost: `end` says why; after an outage it may come back, after a fatal error in a run it does not;
    - leaving: removed from the pool; it finishes its requests.
    """

    def __init__(self, backend: Backend, *, rank: int = 0, place: str) -> None:
        """`rank` is 0 for endpoints that share the images, 1 and more for fallbacks.

        `place` names the endpoint for users until it is identified; it holds no secrets.
        """
        self.backend = backend
        self.in_flight = InFlight()
        """The requests about images."""
        self.proofs = InFlight()
        """The requests that prove or probe the endpoint."""
        self.rank = rank
        self.answers = 0
        """Number of requests that it has answered."""
        self.has_answered = False
        """Whether it has ever answered a request about an image, and not only refused it."""
        self.failed = 0
        """How many images it has failed that another endpoint answered, before its own first answer."""
        self.started = False
        self.proven = False
        self.leaving = False
        """It was removed from the pool: it finishes its requests and gets no new ones."""
        self.end: BackendError | None = None
        """Why it takes no requests any more. An outage that outlasted the patience may still pass."""
        self.load: Load | None = None
        """Requests at the server when it was last polled; None if it does not report them."""
        self._place = place
        self._identity: Endpoint | None = None
        self._limiter: Limiter | None = None
        self._breaker: CircuitBreaker | None = None

    def identify(self, identity: Endpoint, limiter: Limiter) -> None:
        """Preflight succeeded: requests go to `identity` through the slots of `limiter`."""
        self._identity, self._limiter = identity, limiter

    def protect(self, breaker: CircuitBreaker) -> None:
        """`breaker` decides whether the endpoint is up."""
        self._breaker = breaker

    @property
    def place(self) -> str:
        """The endpoint's URL, for messages."""
        return self._identity.url if self._identity is not None else self._place

    @property
    def is_identified(self) -> bool:
        """Whether its identity and its limiter are set."""
        return self._identity is not None

    @property
    def identity(self) -> Endpoint:
        """Backend, URL and model, as preflight found them."""
        assert self._identity is not None, "not identified yet"
        return self._identity

    @property
    def limiter(self) -> Limiter:
        """Its slots."""
        assert self._limiter is not None, "not identified yet"
        return self._limiter

    @property
    def breaker(self) -> CircuitBreaker:
        """Its circuit breaker."""
        assert self._breaker is not None, "not protected yet"
        return self._breaker

    @property
    def is_open(self) -> bool:
        """Whether it takes requests, now or when a slot comes free."""
        return self.proven and self.end is None and not self.leaving and self.breaker.up

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests in a run; a session may prove it again after a fatal error."""
        return self.leaving or isinstance(self.end, FatalBackendError)

    @property
    def away(self) -> BackendError | None:
        """Why it takes no requests; None if it does, or may do so in a moment."""
        return self.end or self.breaker.away

    @property
    def limit(self) -> int:
        """How many requests it may get at once; 0 if that is unknown, or if it is closed."""
        return 0 if self._limiter is None or self.is_closed else self._limiter.limit
