"""The state of a session: which endpoints are up, and how much they have to do."""

from dataclasses import dataclass
from typing import Self

from vlmbatch.endpoints.endpoint import PooledEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """One endpoint now: `up`, or the `reason` why not, with `in_flight` requests of this session.

    `waiting` requests of all clients queue at the server; None if it does not report them.
    """

    backend: str
    url: str
    model: str
    up: bool
    reason: str | None
    in_flight: int
    waiting: int | None

    @classmethod
    def of(cls, endpoint: PooledEndpoint) -> Self:
        """The state of this endpoint."""
        reason = None if endpoint.away is None else str(endpoint.away)
        if reason is None and not endpoint.is_open:
            reason = "it is being proven"
        return cls(
            backend=endpoint.backend.name,
            url=endpoint.place,
            model=endpoint.identity.model if endpoint.is_identified else "",
            up=endpoint.is_open,
            reason=reason,
            in_flight=endpoint.limiter.in_flight if endpoint.is_identified else 0,
            waiting=None if endpoint.load is None else endpoint.load.waiting,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """A session now: its endpoints, and the calls that wait to begin."""

    endpoints: tuple[EndpointState, ...]
    waiting: int

    @property
    def up(self) -> bool:
        """Whether an endpoint takes requests."""
        return any(endpoint.up for endpoint in self.endpoints)
