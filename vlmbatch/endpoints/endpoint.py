"""One endpoint of a run, as the others see it: whether it was met, is proven, is there now, or is over."""

from vlmbatch.errors import BackendError, FatalBackendError
from vlmbatch.guard_protocols import Outages, Slots
from vlmbatch.protocols import Backend
from vlmbatch.records import Endpoint


class PooledEndpoint:
    """One endpoint: met once its preflight went well, proven after its canary."""

    def __init__(self, backend: Backend, *, rank: int = 0, place: str) -> None:
        """`place` is how people know it until it is met; it holds no secrets."""
        self.backend = backend
        self.rank = rank
        self.answers = 0
        """How many came from it so far."""
        self.started = False
        self.proven = False
        self.leaving = False
        """It was taken out of the run: what is in flight is finished."""
        self.end: BackendError | None = None
        """Why it takes no requests any more; patience that ended may begin anew, all else may not."""
        self._place = place
        self._endpoint: Endpoint | None = None
        self._slots: Slots | None = None
        self._outages: Outages | None = None

    def meet(self, endpoint: Endpoint, slots: Slots) -> None:
        """Preflight found who it is; it is asked through these slots."""
        self._endpoint, self._slots = endpoint, slots

    def guard(self, outages: Outages) -> None:
        """These tell whether it is there."""
        self._outages = outages

    @property
    def place(self) -> str:
        """Where requests go, for people to read."""
        return self._endpoint.url if self._endpoint is not None else self._place

    @property
    def is_met(self) -> bool:
        """Whether endpoint and slots are known."""
        return self._endpoint is not None

    @property
    def endpoint(self) -> Endpoint:
        """See guard_protocols.PooledEndpoint."""
        assert self._endpoint is not None, "not met yet"
        return self._endpoint

    @property
    def slots(self) -> Slots:
        """See guard_protocols.PooledEndpoint."""
        assert self._slots is not None, "not met yet"
        return self._slots

    @property
    def outages(self) -> Outages:
        """See guard_protocols.PooledEndpoint."""
        assert self._outages is not None, "not guarded yet"
        return self._outages

    @property
    def is_open(self) -> bool:
        """Whether it takes requests, now or when a slot comes free."""
        return self.proven and self.end is None and not self.leaving and self.outages.up

    @property
    def is_closed(self) -> bool:
        """Whether it is over for good."""
        return self.leaving or isinstance(self.end, FatalBackendError)

    @property
    def away(self) -> BackendError | None:
        """Why it takes no requests; None where it does, or may do so in a moment."""
        return self.end or self.outages.away

    @property
    def limit(self) -> int:
        """How many requests it may get at once, as far as is known."""
        return 0 if self._slots is None or self.is_closed else self._slots.limit
