"""The circuit breaker: a down or busy endpoint is a state of the run, and no image pays for it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
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
"""So many failures in a row, with no answer between them, are an outage."""


async def until_available(
    ask: Callable[[], Awaitable[T]],
    *,
    patience_s: float,
    loading_patience_s: float | None = None,
    delay_s: float = 0.0,
    try_s: float = PREFLIGHT_S,
    least_try_s: float = 1.0,
    who: str = "the endpoint",
    on_away: Callable[[UnavailableError, float], None] = lambda error, left_s: None,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Ask again and again until the endpoint is there, and return what `ask` returns.

    Waits `delay_s` first, then 1, 2, 4 ... 30 seconds between the tries, `patience_s` in all, or
    `loading_patience_s` where somebody is there and only busy or loading. A try that takes longer than
    `try_s`, or than what is left of the patience but at least `least_try_s`, or that fails in passing
    counts as unavailable. `on_away` hears each such try and how many seconds of patience are left; `who`
    is the endpoint in a message.

    Raises:
        UnavailableError: the last one, when patience has run out.
        FatalBackendError: the endpoint is there and refuses.
    """
    began = clock()
    patience = patience_s
    while True:
        if delay_s > 0:
            await sleep(delay_s)
        try:
            async with asyncio.timeout(min(try_s, max(began + patience - clock(), least_try_s))):
                return await ask()
        except UnavailableError as error:
            away = error
        except TransientError as error:
            away = UnavailableError(str(error), kind=error.kind, retry_after=error.retry_after)
        except (RejectedError, BadAnswerError) as error:
            raise FatalBackendError(
                f"{error}; is this the right --base-url and --backend?", kind="wrong_url"
            ) from error
        except TimeoutError:
            away = UnavailableError(f"{who} did not answer in time; http or https? is the server well?")
        is_there = not isinstance(away, UnreachableError)
        patience = loading_patience_s if is_there and loading_patience_s is not None else patience_s
        left = began + patience - clock()
        if left <= 0:
            raise away
        on_away(away, left)
        delay_s = min(max(min(max(2 * delay_s, 1.0), LONGEST_DELAY_S), away.retry_after or 0.0), left)


class CircuitBreaker:
    """Holds everybody back until the endpoint is proven, and while it is away."""

    def __init__(
        self,
        *,
        prove: Callable[[], Awaitable[None]],
        probe: Callable[[], Awaitable[None]],
        patience_s: float,
        try_s: float,
        least_try_s: float = 1.0,
        notify: Observer,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`prove` is asked once, before the first image; `probe` tells whether an outage is over.

        Both may take `try_s` seconds, since they may find a cold model, and at least `least_try_s`.
        `patience_s` is how long the endpoint may go without a single answer before the run ends.
        """
        self._prove = prove
        self._probe = probe
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
        self.away: UnavailableError | None = None
        """Why it is not there, as long as it is not."""

    @property
    def up(self) -> bool:
        """Whether it is taken for up now."""
        return self._up.is_set()

    async def ready(self) -> None:
        """Wait until the endpoint is proven and taken for up.

        Raises:
            BackendError: it will not be, and the run ends.
        """
        if not self._proven:
            async with self._proving:
                if not self._proven:
                    await self._begin()
        await self._up.wait()
        if self._end is not None:
            raise self._end

    def answered(self) -> None:
        """An answer came, of whatever kind: the endpoint is there."""
        self._answered = True
        self._down_since, self._pauses, self._streak = None, 0, 0
        self._failing.clear()

    async def unavailable(self, error: UnavailableError, waits: int) -> None:
        """Return when it is worth asking again about an image that was turned away `waits` times.

        One that is told "busy" waits alone; who is gone, loading, or asks for a wait pauses all, and so
        do five such replies in a row. A server that takes probes but answers no request keeps its
        outage: the patience runs on.

        Raises:
            UnavailableError: the endpoint stayed away for longer than the patience.
        """
        if not self.up:  # somebody else is probing already
            return
        self._streak += 1
        if error.kind == "busy" and error.retry_after is None and self._streak < STREAK:
            wait = min(2.0 ** min(waits - 1, 6), LONGEST_DELAY_S)
            await self._sleep(wait * (1 - 0.5 * self._jitter()))
            return
        await self._pause(error)

    async def failed(self, error: BackendError, image: str) -> None:
        """Hear that a request about `image` failed in passing; five in a row pause all.

        A probe that is answered then ends the outage, if any image ever was: what fails after it are the
        images' own attempts. Where none was, the patience runs on.

        Raises:
            UnavailableError: probes failed for longer than the patience.
        """
        self._streak += 1
        self._failing.add(image)
        if self._streak >= STREAK and len(self._failing) > 1 and self.up:
            told = f"{self._streak} requests in a row failed, the last one: {error}"
            await self._pause(UnavailableError(told, kind=error.kind, retry_after=error.retry_after))
            if self._answered:
                self._down_since = None

    async def again(self) -> None:
        """Go on looking for it, with new patience, after patience had ended.

        Raises:
            BackendError: it ended once more.
        """
        error, self._end = self._end, None
        self._down_since = None
        if self._proven and isinstance(error, UnavailableError):
            await self._pause(error)
        else:
            await self.ready()

    async def _begin(self) -> None:
        """Prove the endpoint, which also loads a cold model."""
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
            await self._until(self._prove, self._patience_s, 0.0, tell)
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
        downs = self.downs

        def hear(away: UnavailableError, _left_s: float = 0.0) -> None:
            """Nobody was there in this pause, as its cause or a probe says."""
            self.downs = downs + 1 if away.kind == "down" else self.downs

        hear(error)
        self._up.clear()
        self.away = error
        try:
            self._notify(EndpointPaused(message=str(error), give_up_s=left))
            await self._until(self._probe, left, delay_s, hear)
            self.away = None
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
