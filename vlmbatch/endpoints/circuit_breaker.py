"""The circuit breaker of one endpoint: while it is down or busy, its images wait and lose no attempt."""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    InternalError,
    RejectedError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.events import EndpointPaused, EndpointResumed
from vlmbatch.protocols import Observer, Sleep

T = TypeVar("T")

START_PATIENCE_S = 5.0
RUN_PATIENCE_S = 900.0
LONGEST_DELAY_S = 30.0
PREFLIGHT_S = 30.0
STREAK = 5
"""This many failures in a row, with no answer between them, are an outage."""


async def until_available(
    ask: Callable[[], Awaitable[T]],
    *,
    patience_s: float,
    loading_patience_s: float | None = None,
    delay_s: float = 0.0,
    try_s: float = PREFLIGHT_S,
    least_try_s: float = 1.0,
    name: str = "the endpoint",
    on_away: Callable[[UnavailableError, float], None] = lambda error, left_s: None,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call `ask` until the endpoint is up, and return the result of `ask`.

    Waits `delay_s` first, and then twice the last wait each time, 1 to 30 seconds. Gives up after
    `patience_s`, or after `loading_patience_s` if the endpoint accepts connections and is busy or loading. A
    try has `try_s` seconds, or the rest of the longer patience if that is less, but at least `least_try_s`.
    If a try takes longer or fails for a reason that may pass, the endpoint counts as unavailable. `on_away`
    receives the error of each such try except the last, and the seconds of patience that are left. `name` is
    the endpoint in a message.

    Raises:
        UnavailableError: the last one, when the patience is used up.
        FatalBackendError: the endpoint is up and refuses.
    """
    began = clock()
    loading_s = patience_s if loading_patience_s is None else loading_patience_s
    end = began + max(patience_s, loading_s)
    while True:
        if delay_s > 0:
            await sleep(delay_s)
        try:
            async with asyncio.timeout(min(try_s, max(end - clock(), least_try_s))):
                return await ask()
        except UnavailableError as error:
            away = error
        except (TransientError, InternalError) as error:
            away = UnavailableError(str(error), kind=error.kind, retry_after=error.retry_after)
        except (RejectedError, BadAnswerError) as error:
            raise FatalBackendError(f"{error}; check --base-url and --backend", kind="wrong_url") from error
        except TimeoutError:
            away = UnavailableError(
                f"{name} did not answer in time; check http or https in --base-url, and the log of the server"
            )
        is_loading = not isinstance(away, UnreachableError) and away.kind != "internal"
        left = began + (loading_s if is_loading else patience_s) - clock()
        if left <= 0:
            raise away
        on_away(away, left)
        delay_s = min(max(min(max(2 * delay_s, 1.0), LONGEST_DELAY_S), away.retry_after or 0.0), left)


class CircuitBreaker(ABC):
    """Holds back the images of one endpoint until it is proven, and while it is down."""

    def __init__(
        self,
        *,
        patience_s: float,
        try_s: float,
        least_try_s: float = 1.0,
        notify: Observer,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """A proof or a probe may take `try_s` seconds, since the model may have to be loaded. It may take
        `least_try_s` even if less patience is left.

        `patience_s` is how long an outage may last, from its first pause, until the endpoint is given up.
        """
        self._patience_s = patience_s
        self._try_s = try_s
        self._least_try_s = least_try_s
        self._notify = notify
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._proving = asyncio.Lock()
        self._proven = False
        self._end: BackendError | None = None
        self._up = asyncio.Event()
        self._up.set()
        self._down_since: float | None = None
        self._answered = False
        self._pauses = 0
        self._streak = 0
        self._failing: set[str] = set()
        self.downs = 0
        """How often the endpoint was found down so far."""
        self.away: UnavailableError | None = None
        """Why the endpoint is down; None while it is up."""

    @abstractmethod
    async def prove(self) -> None:
        """Prove, before the first image, that the endpoint answers; raises a BackendError if not."""

    @abstractmethod
    async def probe(self) -> None:
        """Find out whether an outage is over; raises a BackendError while it is not."""

    def restarted(self) -> None:  # noqa: B027  # only an endpoint with requests in flight has to act
        """Act on the end of an outage in which the endpoint refused connections: a new server answers now."""

    @property
    def up(self) -> bool:
        """Whether no pause holds requests back; also true once the endpoint is given up."""
        return self._up.is_set()

    async def ready(self) -> None:
        """Wait until the endpoint is proven and up.

        Raises:
            BackendError: the endpoint is given up.
        """
        if not self._proven:
            async with self._proving:
                if not self._proven:
                    await self._begin()
        await self._up.wait()
        if self._end is not None:
            raise self._end

    def answered(self) -> None:
        """The endpoint answered, in whatever way: it is up."""
        self._answered = True
        self._down_since, self._pauses, self._streak = None, 0, 0
        self._failing.clear()

    async def unavailable(self, error: UnavailableError, waits: int) -> None:
        """Wait until an image may try again for which the endpoint was busy or down `waits` times.

        After a "busy" only that image waits. All images pause if the endpoint is down or loading, if it asks
        for a wait, or after five such replies in a row. A server that takes probes but answers no request
        stays in its outage: the patience runs on.

        Raises:
            UnavailableError: the endpoint stayed down for longer than the patience.
        """
        if not self.up:  # another image's error started a pause already
            return
        self._streak += 1
        if error.kind == "busy" and error.retry_after is None and self._streak < STREAK:
            wait = min(2.0 ** min(waits - 1, 6), LONGEST_DELAY_S)
            await self._sleep(wait * (1 - 0.5 * self._jitter()))
            return
        await self._pause(error)

    async def failed(self, error: BackendError, cause: str) -> None:
        """A request failed in passing; five in a row, with several causes, pause all images.

        `cause` is what the failure may be due to: the image, or the client of a session that several share.

        The first good probe then ends the outage, if the endpoint ever answered an image: later failures cost
        the images their attempts. If it never did, the patience runs on.

        Raises:
            UnavailableError: probes failed for longer than the patience.
        """
        self._streak += 1
        self._failing.add(cause)
        if self._streak >= STREAK and len(self._failing) > 1 and self.up:
            told = f"{self._streak} requests in a row failed, the last one: {error}"
            await self._pause(UnavailableError(told, kind=error.kind, retry_after=error.retry_after))
            if self._answered:
                self._down_since = None

    async def again(self) -> None:
        """Probe a given-up endpoint with new patience.

        Raises:
            BackendError: it is given up once more.
        """
        error, self._end = self._end, None
        self._down_since = None
        if self._proven and isinstance(error, UnavailableError):
            await self._pause(error)
        else:
            await self.ready()

    async def renew(self) -> None:
        """Prove a given-up endpoint again, whatever ended it.

        Raises:
            BackendError: it is given up once more.
        """
        self._end, self._down_since, self._proven = None, None, False
        await self.ready()

    async def _begin(self) -> None:
        """Prove the endpoint, which also loads its model."""
        if self._end is not None:
            raise self._end
        began = self._clock()
        paused = False

        def tell(error: UnavailableError, left_s: float) -> None:
            nonlocal paused
            self.away = error
            if not paused:
                self._notify(EndpointPaused(message=str(error), give_up_s=left_s))
            paused = True

        try:
            await self._until(self.prove, self._patience_s, 0.0, tell)
        except BackendError as error:
            self._end = error
            raise
        self._proven, self.away = True, None
        if paused:
            self._notify(EndpointResumed(paused_s=self._clock() - began))

    async def _pause(self, error: UnavailableError) -> None:
        now = self._clock()
        if self._down_since is None:
            self._down_since = now
        left = self._patience_s - (now - self._down_since)
        if left <= 0:
            self._end = error
            raise error
        delay_s = min(max(min(2.0**self._pauses, LONGEST_DELAY_S), error.retry_after or 0.0), left)
        self._pauses = min(self._pauses + 1, 6)
        self._streak = 0
        self._failing.clear()
        downs, was_gone = self.downs, False

        def judge(away: UnavailableError, _left_s: float = 0.0) -> None:
            """Count this pause as one time down if its cause or a probe says so."""
            nonlocal was_gone
            self.downs = downs + 1 if away.kind == "down" else self.downs
            was_gone |= isinstance(away, UnreachableError) and away.refused

        judge(error)
        self._up.clear()
        self.away = error
        try:
            self._notify(EndpointPaused(message=str(error), give_up_s=left))
            await self._until(self.probe, left, delay_s, judge)
            self.away = None
            if was_gone:
                self.restarted()
            self._notify(EndpointResumed(paused_s=self._clock() - now))
        except BackendError as away:
            self._end = away
            raise
        finally:
            self._up.set()

    async def _until(
        self,
        ask: Callable[[], Awaitable[None]],
        patience_s: float,
        delay_s: float,
        on_away: Callable[[UnavailableError, float], None] = lambda error, left_s: None,
    ) -> None:
        await until_available(
            ask,
            patience_s=patience_s,
            delay_s=delay_s,
            try_s=self._try_s,
            least_try_s=self._least_try_s,
            on_away=on_away,
            sleep=self._sleep,
            clock=self._clock,
        )
