"""The crashes of an engine during the requests of one image, and how often the engine was busy for it."""

from collections import Counter

from vlmbatch.endpoints.circuit_breaker import CircuitBreaker
from vlmbatch.errors import FailureKind, RejectedError

BROKEN_OFF: frozenset[FailureKind] = frozenset(("connection", "server_error"))
"""How a request ends if its engine dies without a message."""
REPORTED_CRASHES = 2
"""An image fails after this many crashes that the engine reported while it had no other request."""
CRASHES = 4
"""An image fails after this many crashes in all. An engine that is found down may have been restarted: if
restarts come every few seconds (benchmarks/soak.py), two of them hit one image by chance."""

MOST_WAITS = 20
"""An image for which the endpoint was busy or down this often is sent alone."""
OTHER_ANSWERS = 3
"""An image that is sent alone fails if the endpoint is busy for it but answers another picture this often."""


class CrashHistory:
    """The crashes of one image's requests, and the busy replies to them, at endpoints of one rank.

    Two things count as a crash: the engine reports one, or a request breaks off and the endpoint is then
    found down. A crash makes suspects of all images in flight; each suspect is then sent alone. `reported`
    and `found` count the crashes at which this image was alone. One crash proves nothing, since a restart of
    the server looks the same.

    A fallback may answer for a moment while the first endpoint is down: busy replies count for each rank.
    """

    def __init__(self) -> None:
        self.suspect = False
        self.reported = 0
        self.found = 0
        self.refunded = 0
        """Attempts of the image that were lost to crashes and do not count."""
        self.rank = 0
        """The rank of the endpoint of the last request."""
        self._waits = Counter[int]()
        self._other_answers = Counter[int]()
        self.breaker: CircuitBreaker | None = None
        """The circuit breaker of the endpoint at which a request failed last."""
        self._downs: int | None = None
        self._alone = False
        self._cost = 0

    @property
    def causes_crashes(self) -> bool:
        """Whether the engine crashes because of this image."""
        return self.reported >= REPORTED_CRASHES or self.reported + self.found >= CRASHES

    def failed(self, kind: FailureKind, *, alone: bool, counted: bool, downs: int) -> None:
        """Record a failed request.

        `alone`: the endpoint had no other request; `counted`: the request cost the image an attempt; `downs`:
        how often the endpoint had been down when the request was sent.
        """
        if kind == "crash":
            self._crashed()
            self.reported += alone
        elif kind in BROKEN_OFF:
            self._cost = counted + (self._cost if self._downs == downs else 0)
            self._downs, self._alone = downs, alone

    @property
    def waits(self) -> int:
        """How often the endpoints of this rank were down or busy for this image."""
        return self._waits[self.rank]

    def unavailable(self) -> bool:
        """Count that an endpoint was busy or down; returns whether the image was therefore alone."""
        self._waits[self.rank] += 1
        self.suspect = self.suspect or self.waits >= MOST_WAITS
        return self.waits > MOST_WAITS

    def others_answered(self) -> bool:
        """Count that the endpoint answered another picture then; returns whether the image fails."""
        self._other_answers[self.rank] += 1
        return self._other_answers[self.rank] >= OTHER_ANSWERS

    def must_be_alone(self) -> bool:
        """Whether the image's next request must be the only one at its endpoint; called before each request.

        If the endpoint has gone down since the last failure, that failure was a crash: its attempts are
        refunded.

        Raises:
            RejectedError: the engine crashes because of this image.
        """
        if self.breaker is not None:
            self.refunded += self.refund(self.breaker.downs)
        if self.causes_crashes:
            raise RejectedError(
                f"the engine crashed {self.reported + self.found} times with this image while no "
                "other request was in flight; to try again, add --retry-failed, perhaps with a smaller "
                "--max-size",
                kind="crash",
            )
        return self.suspect

    def refund(self, downs: int) -> int:
        """The number of attempts that were lost to an outage, which shows in `downs`; each counts once."""
        if self._downs is None or downs <= self._downs:
            return 0
        self._crashed()
        self.found += self._alone
        return self._cost

    def _crashed(self) -> None:
        self._downs = None
        self.suspect = True
