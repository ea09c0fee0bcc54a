"""The circuit breaker: a down or busy endpoint is a state of the run, and no image pays for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vlmbatch.errors import (
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
)
from vlmbatch.events import EndpointPaused, EndpointResumed
from vlmbatch.protocols import Observer, Sleep

T = TypeVar("T")

START_PATIENCE_S = 5.0
RUN_PATIENCE_S = 900.0
LONGEST_DELAY_S = 30.0
PREFLIGHT_S = 30.0
PROBE_S = 10.0


async def until_available(
    ask: Callable[[], Awaitable[T]],
    *,
    patience_s: float,
    delay_s: float = 0.0,
    try_s: float = PREFLIGHT_S,
    sleep: Sleep = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Ask again and again until the endpoint is there, and return what `ask` returns.

    Waits `delay_s` first, then 1, 2, 4 ... 30 seconds between the tries, `patience_s` in all. A try
    that takes longer than `try_s`, or than what is left of the patience, or fails in passing counts as
    unavailable.

    Raises:
        UnavailableError: the last one, when patience has run out.
        FatalBackendError: the endpoint is there and refuses.
    """
    end = clock() + patience_s
    while True:
        if delay_s > 0:
            await sleep(delay_s)
        try:
            async with asyncio.timeout(min(try_s, max(end - clock(), 1.0))):
                return await ask()
        except UnavailableError as error:
            away = error
        except TransientError as error:
            away = UnavailableError(str(error), kind=error.kind)
        except (RejectedError, BadAnswerError) as error:
            raise FatalBackendError(
                f"{error}; is this the right --base-url and --backend?", kind="wrong_url"
            ) from error
        except TimeoutError:
            away = UnavailableError("the endpoint takes the connection and does not answer")
        left = end - clock()
        if left <= 0:
            raise away
        delay_s = min(max(2 * delay_s, 1.0, away.retry_after or 0.0), LONGEST_DELAY_S, left)


class Availability:
    """Holds everybody back while the endpoint is away, and probes until it is there again."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        *,
        patience_s: float,
        notify: Observer,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience_s` is how long the endpoint may go without a single answer before the run ends."""
        self._probe = probe
        self._patience_s = patience_s
        self._notify = notify
        self._sleep = sleep
        self._clock = clock
        self._up = asyncio.Event()
        self._up.set()
        self._down_since: float | None = None
        self._outages = 0

    async def ready(self) -> None:
        """Wait until the endpoint is taken for up."""
        await self._up.wait()

    def answered(self) -> None:
        """An answer came, of whatever kind: the endpoint is there."""
        self._down_since, self._outages = None, 0

    async def outage(self, error: UnavailableError) -> None:
        """Pause all, probe, and return when it is worth asking again.

        A server that takes probes but answers no request keeps its outage: the patience runs on.

        Raises:
            UnavailableError: the endpoint stayed away for longer than the patience.
        """
        if not self._up.is_set():  # somebody else is probing already
            await self.ready()
            return
        now = self._clock()
        if self._down_since is None:
            self._down_since = now
        left = self._patience_s - (now - self._down_since)
        if left <= 0:
            raise error
        delay_s = min(max(2.0 ** min(self._outages, 6), error.retry_after or 0.0), LONGEST_DELAY_S, left)
        self._outages += 1
        self._up.clear()
        try:
            self._notify(EndpointPaused(message=str(error), give_up_s=left))
            await until_available(
                self._probe,
                patience_s=left,
                delay_s=delay_s,
                try_s=PROBE_S,
                sleep=self._sleep,
                clock=self._clock,
            )
            self._notify(EndpointResumed(paused_s=self._clock() - now))
        finally:
            self._up.set()
