"""Retries: how often a request is sent again after a failure, when, and how differently."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from tenacity import AsyncRetrying, RetryCallState

from vlmbatch.errors import BackendError, BadAnswerError, TransientError
from vlmbatch.protocols import Sleep
from vlmbatch.records import Generation, Request

T = TypeVar("T")

LONGEST_WAIT_S = 60.0
BAD_ANSWERS = 3
TIMEOUTS = 4
"""Attempts that may end in a timeout: each costs minutes, and leaves the server a useless generation."""
TEMPERATURES = (0.2, 0.5, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The retries of one image. `retries` counts the attempts after the first."""

    retries: int = 8
    sleep: Sleep = asyncio.sleep
    jitter: Callable[[], float] = random.random

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        on_retry: Callable[[int, float, BackendError], None],
        refunds: Callable[[], int] = lambda: 0,
    ) -> T:
        """The result of `attempt`, which is called again after a failure; see `retry`."""
        try:
            return await attempt()
        except BackendError as error:
            failed = [error]
        return await self.retry(failed, attempt, on_retry, refunds)

    async def retry(
        self,
        failed: list[BackendError],
        attempt: Callable[[], Awaitable[T]],
        on_retry: Callable[[int, float, BackendError], None],
        refunds: Callable[[], int],
    ) -> T:
        """The result of another `attempt`. `failed` holds the error of the first attempt, and is emptied.

        The caller makes the first attempt, and most images need no other. So they do not pay for tenacity,
        which takes a twentieth of the CPU time of an image.

        A temporary failure is retried `retries` times, a timeout at most three times. After a bad answer, the
        next attempt follows at once, at most twice. `on_retry` gets the number of the attempt, the wait in
        seconds and the error; `refunds` returns how many attempts so far do not count.

        The last error is raised unchanged.
        """
        with self._attempts(on_retry, refunds) as attempts:
            async for again in attempts:
                with again:
                    if failed:
                        raise failed.pop()  # a variable with the error would be a reference cycle
                    return await attempt()
        raise AssertionError("attempts end with a result or an error")

    def _attempts(
        self, on_retry: Callable[[int, float, BackendError], None], refunds: Callable[[], int]
    ) -> "_Attempts":
        bad_answers = timeouts = 0

        def again(state: RetryCallState) -> bool:
            nonlocal bad_answers, timeouts
            error = _error(state)
            if isinstance(error, BadAnswerError):
                bad_answers += 1
                return bad_answers < BAD_ANSWERS
            if isinstance(error, TransientError) and error.kind == "timeout":
                timeouts += 1
                return timeouts < TIMEOUTS
            return isinstance(error, TransientError)

        def tell(state: RetryCallState) -> None:
            error = _error(state)
            if isinstance(error, BackendError):
                on_retry(state.attempt_number, state.upcoming_sleep, error)

        return _Attempts(
            stop=lambda state: state.attempt_number - refunds() > self.retries,
            wait=self._wait,
            retry=again,
            before_sleep=tell,
            sleep=self.sleep,
            reraise=True,
        )

    def ask_differently(self, request: Request, error: BadAnswerError, attempt: int) -> tuple[Request, str]:
        """The request to send after a bad answer to attempt number `attempt`, and a warning for the record.

        For `shrink` the request stays the same: the caller prepares a smaller picture.
        """
        before = request.generation
        if error.change == "shrink":
            return request, f"retried with a smaller picture: {error.kind}"
        if error.change == "no_thinking" and before.thinking is not False:
            changed = replace(before, thinking=False)
            return _with(request, changed), f"retried without thinking: {error.kind}"
        temperature = max(before.temperature, TEMPERATURES[min(attempt, len(TEMPERATURES)) - 1])
        changed = replace(before, seed=(before.seed or 0) + attempt, temperature=temperature)
        return (
            _with(request, changed),
            f"retried with seed {changed.seed} and temperature {temperature:g}: {error.kind}",
        )

    def _wait(self, state: RetryCallState) -> float:
        """Seconds to wait: 1, 2, 4 ... 60, reduced by up to half at random, but at least Retry-After."""
        error = _error(state)
        if isinstance(error, BadAnswerError):
            return 0.0
        asked = error.retry_after if isinstance(error, BackendError) else None
        wait = min(2.0 ** min(state.attempt_number - 1, 6), LONGEST_WAIT_S) * (1 - 0.5 * self.jitter())
        return max(wait, asked or 0.0)


class _Attempts(AsyncRetrying):
    """Tenacity's attempts, without the cycle that they leave: the loop and its state refer to each other.

    Python would collect that cycle in the end, and stop all other work for it.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._retry_state
        self.iter_state.reset()


def _with(request: Request, generation: Generation) -> Request:
    return replace(request, generation=generation)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
