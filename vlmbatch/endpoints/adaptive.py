"""The limits of requests at once: one finds the best number by itself, the other keeps a fixed number."""

from dataclasses import dataclass
from enum import Enum

LEAST_ANSWERS = 8
"""A window has at least this many answers, and two for each slot: fewer say little about a rate."""
PAYS = 1.07
"""A larger limit is kept if the rate grows by this factor."""
STEEP = 1.5
"""A rate that has grown by this factor needs only one round of answers as proof."""
LOSES_NOTHING = 0.95
"""A smaller limit is kept if this much of the rate is left."""
HOLD = 8
LONGEST_HOLD = 32
"""The number of windows before another limit is tried; it doubles, up to LONGEST_HOLD, while trials fail."""
FIRST_HOLD = 1
"""This replaces HOLD if the limit is known from an earlier run, or if a smaller limit was just as fast."""
FIRST_CONCURRENCY = 16
"""The most requests at once at the start, if the server does not report its slots."""


class Phase(Enum):
    """The current way to change the limit."""

    CLIMB = "double it while that pays"
    SHRINK = "halve it while that costs nothing: the start was too high"
    HOLD = "keep it, and try a larger and a smaller one in turns"
    RECOVER = "grow back after an overload"


@dataclass(slots=True)
class Trial:
    """A limit on trial: the limit before it, and the answers a second at that."""

    before: int
    rate: float


class AdaptiveLimit:
    """A limit that follows the rate of answers.

    An endpoint of S slots answers min(limit, S) requests in the time of one; requests beyond S queue. So the
    rate shows S, however long an answer takes. An overload halves the limit; the limit at that moment is a
    ceiling for a while.
    """

    adapts = True

    def __init__(self, start: int, most: int, known_limit: int | None = None) -> None:
        """`start` is the first limit, `most` the largest.

        `known_limit` is the best limit of an earlier run, and replaces `start`. If it is above
        FIRST_CONCURRENCY, half of it is the first limit: the endpoint may now have fewer slots.
        """
        if known_limit is not None:
            halved = max(known_limit // 2, FIRST_CONCURRENCY)
            start = min(known_limit, halved)
        self.limit = min(start, most)
        self.most = most
        self.best: int | None = None
        """The best limit so far, without the limit on trial; None until one is found."""
        self._ceiling = most + 1
        self._phase = Phase.HOLD if known_limit == self.limit else Phase.CLIMB
        self._grows_back = known_limit is not None and self._phase is Phase.CLIMB
        self._trial: Trial | None = None
        self._grew = False
        self._hold = FIRST_HOLD if self._phase is Phase.HOLD else HOLD
        self._held = 0
        self._held_rate = 0.0
        self._up_next = True
        self._began: float | None = None
        self._skip = 0
        self._answers = 0
        self._saturated = 0

    def answered(self, now: float, *, waiting: bool) -> None:
        """Count an answer at `now` seconds; `waiting`: an image waits for a slot."""
        if self._skip:  # sent under the limit before
            self._skip -= 1
            return
        if self._began is None:
            self._began, self._answers, self._saturated = now, 0, 0
            return
        self._answers += 1
        self._saturated += waiting
        if self._answers < max(self.limit, LEAST_ANSWERS) or now <= self._began:
            return
        rate, full = self._answers / (now - self._began), 2 * self._saturated > self._answers
        if self._answers < _window(self.limit) and not (full and (self._grows_back or self._is_steep(rate))):
            return
        limit = self.limit
        self._began, self._grows_back = None, False
        if full:  # otherwise the endpoint waits for the client, and its rate shows nothing
            self._decide(rate)
        if self.limit != limit:
            self._skip = limit

    def _is_steep(self, rate: float) -> bool:
        """Whether a larger limit has paid so well that one round is proof."""
        return self._phase is Phase.CLIMB and self._trial is not None and rate >= STEEP * self._trial.rate

    def overloaded(self) -> None:
        """The endpoint was overloaded: halve the limit."""
        self._ceiling = max(self.limit, 2)
        self._skip = self.limit
        self.limit = max(self.limit // 2, 1)
        self._enter(Phase.RECOVER)
        self._hold = HOLD

    def queueing(self, surplus: int) -> None:
        """`surplus` of our requests only queue at the endpoint: lower the limit by them."""
        if surplus <= 0 or self._skip:  # requests sent under a larger limit are still in flight
            return
        self._skip = self.limit
        self._ceiling = max(self.limit, 2)
        self.limit = max(self.limit - surplus, self.limit // 2, 1)
        self._enter(Phase.HOLD)

    def _decide(self, rate: float) -> None:
        """Change the limit by the rate of one window."""
        trial, self._trial = self._trial, None
        match self._phase:
            case Phase.CLIMB:
                self._climb(trial, rate)
            case Phase.SHRINK:
                self._shrink(trial, rate)
            case Phase.HOLD:
                self._keep(trial, rate)
            case Phase.RECOVER:
                self._recover()

    def _climb(self, trial: Trial | None, rate: float) -> None:
        if trial is None or rate >= PAYS * trial.rate:
            self._grew = trial is not None
            if self._grew:
                self.best = self.limit  # a short run may end before it finds a better one
            if self.limit < self.most:
                self._try(min(2 * self.limit, self.most), rate)
            else:
                self._enter(Phase.HOLD)
            return
        self.limit = trial.before
        if self._grew or self.limit == 1:
            self._enter(Phase.HOLD)
        else:
            self._enter(Phase.SHRINK)
            self._try(self.limit // 2, max(rate, trial.rate))

    def _shrink(self, trial: Trial | None, rate: float) -> None:
        if trial is not None and rate < LOSES_NOTHING * trial.rate:
            self.limit = trial.before
        elif self.limit > 1:
            self._try(self.limit // 2, max(rate, trial.rate if trial else 0.0))
            return
        self._enter(Phase.HOLD)

    def _keep(self, trial: Trial | None, rate: float) -> None:
        if trial is None:
            self._held += 1
            self._held_rate += (rate - self._held_rate) / min(self._held, 4)
            if self._held >= self._hold:
                self._try(self._another(), self._held_rate)
            return
        if self.limit > trial.before and rate >= PAYS * trial.rate:
            self._hold = HOLD
            self._enter(Phase.CLIMB)  # and continue
            self._climb(trial, rate)
            return
        if self.limit > trial.before or rate < LOSES_NOTHING * trial.rate:
            self.limit = trial.before
            self._hold = min(2 * self._hold, LONGEST_HOLD)
        else:  # the smaller limit is as fast, and perhaps the next smaller one, too
            self._hold, self._up_next = FIRST_HOLD, False
        self._enter(Phase.HOLD)

    def _another(self) -> int:
        """Another limit to try: one and a half times the current one, or two thirds of it, in turn."""
        up, self._up_next = self._up_next, not self._up_next
        step = max(self.limit // 2, 1)
        if not up:
            return max(self.limit - max(self.limit // 3, 1), 1)
        if self.limit + step < self._ceiling:
            return min(self.limit + step, self.most)
        self._ceiling = self.most + 1  # the overload was long ago
        return self.limit

    def _recover(self) -> None:
        grown = min(self.limit + max(self.limit // 4, 1), self._ceiling - 1, self.most)
        if grown <= self.limit:
            self._enter(Phase.HOLD)
        self.limit = max(grown, self.limit)

    def _try(self, limit: int, rate: float) -> None:
        if limit != self.limit:
            self._trial = Trial(before=self.limit, rate=rate)
            self.limit = limit
        else:
            self._held = 0

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if phase in (Phase.HOLD, Phase.RECOVER):
            self.best = self.limit
        self._trial = None
        self._held = 0
        self._held_rate = 0.0
        self._began = None


class BackoffLimit:
    """A fixed limit, which is lower while the endpoint says that it is busy.

    Such a reply halves the limit. It grows again with the answers, at first only below the number that was
    too many.
    """

    adapts = False

    def __init__(self, fixed: int) -> None:
        self.limit = fixed
        self.most = fixed
        self.best = None
        self._too_many = fixed + 1
        self._answers = 0

    def answered(self, now: float, *, waiting: bool) -> None:
        """Count an answer."""
        if self.limit == self.most:
            return
        self._answers += 1
        window = max(self.limit, LEAST_ANSWERS)
        if self._answers >= HOLD * window:
            self._too_many = self.most + 1  # the endpoint was busy long ago
        if self.limit < self._too_many - 1 and self._answers >= window:
            self.limit = min(self.limit + max(self.limit // 4, 1), self._too_many - 1)
            self._answers = 0

    def overloaded(self) -> None:
        """The endpoint is busy: halve the limit."""
        self._too_many = max(self.limit, 2)
        self.limit = max(self.limit // 2, 1)
        self._answers = 0

    def queueing(self, surplus: int) -> None:
        """Do nothing: the user wants requests to queue at the endpoint."""


def _window(limit: int) -> int:
    """The number of answers for one rate: whole rounds, since answers come in bursts of one round each."""
    return limit * max(2, -(-LEAST_ANSWERS // limit))
