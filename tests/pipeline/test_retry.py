"""The retry policy: waits, attempts and changes to a question."""

import gc
import weakref

import pytest

from vlmbatch.errors import BackendError, BadAnswerError, RejectedError, TransientError
from vlmbatch.pipeline.retry import RetryPolicy
from vlmbatch.records import Generation, Request

Told = list[tuple[int, float, str]]


async def outcome(policy: RetryPolicy, errors: list[BackendError], refunds: int = 0) -> tuple[str, Told]:
    """The outcome of an image whose attempts end with these errors and then an answer, and its retries."""
    left, told = list(errors), []

    def on_retry(attempt: int, delay_s: float, error: BackendError) -> None:
        told.append((attempt, delay_s, error.kind))

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "answered"

    return await policy.run(attempt, on_retry, lambda: refunds), told


def policy(retries: int = 8, slept: list[float] | None = None) -> RetryPolicy:
    """A policy that records its sleeps in a list; its jitter is 0, so that the waits are the longest ones."""

    async def sleep(seconds: float) -> None:
        if slept is not None:
            slept.append(seconds)

    return RetryPolicy(retries=retries, sleep=sleep, jitter=lambda: 0.0)


async def test_transient_failures_are_retried_with_doubling_waits() -> None:
    """The waits between attempts double from one second up to a minute."""
    slept: list[float] = []
    answer, told = await outcome(policy(slept=slept), [TransientError("x") for _ in range(8)])
    assert answer == "answered"
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [attempt for attempt, _, _ in told] == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_the_last_error_is_raised_unchanged() -> None:
    """After the last retry the image fails with the last error itself, not with a wrapper."""
    errors: list[BackendError] = [TransientError(f"error {n}") for n in range(4)]
    with pytest.raises(TransientError, match="error 3"):
        await outcome(policy(retries=3), errors)


async def test_no_retries_means_one_attempt() -> None:
    """With --retries 0 an image has one attempt."""
    with pytest.raises(TransientError, match="first"):
        await outcome(policy(retries=0), [TransientError("first"), TransientError("second")])


async def test_a_wait_is_at_least_retry_after() -> None:
    """The wait before an attempt is never shorter than the endpoint's Retry-After."""
    slept: list[float] = []
    await outcome(
        policy(slept=slept), [TransientError("x", retry_after=7.5), TransientError("x", retry_after=0.1)]
    )
    assert slept == [7.5, 2]


async def test_a_rejected_image_is_not_retried() -> None:
    """A rejected image fails without a retry."""
    slept: list[float] = []
    with pytest.raises(RejectedError):
        await outcome(policy(slept=slept), [RejectedError("no")])
    assert slept == []


async def test_a_bad_answer_is_retried_twice_without_a_wait() -> None:
    """Two bad answers are retried without a wait; the third one fails the image."""
    slept: list[float] = []
    bad: list[BackendError] = [BadAnswerError("empty") for _ in range(3)]
    assert (await outcome(policy(slept=slept), bad[:2]))[0] == "answered"
    assert slept == [0, 0]
    with pytest.raises(BadAnswerError):
        await outcome(policy(), bad)


async def test_a_timeout_is_retried_three_times() -> None:
    """The fourth timeout fails the image, even if --retries is higher: each one costs minutes of a slot."""
    errors: list[BackendError] = [TransientError("late", kind="timeout") for _ in range(4)]
    assert (await outcome(policy(), errors[:3]))[0] == "answered"
    with pytest.raises(TransientError, match="late"):
        await outcome(policy(), errors)


async def test_a_refunded_attempt_does_not_count() -> None:
    """Refunded attempts are added to the attempts of the image."""
    left: list[BackendError] = [TransientError("x") for _ in range(5)]
    with pytest.raises(TransientError):
        await outcome(policy(retries=3), list(left))
    assert (await outcome(policy(retries=3), left, refunds=2))[0] == "answered"


async def test_jitter_shortens_a_wait_by_half_at_most() -> None:
    """With the most jitter a wait is half of its doubling step."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    half = RetryPolicy(retries=2, sleep=sleep, jitter=lambda: 1.0)
    await outcome(half, [TransientError("x"), TransientError("x")])
    assert slept == [0.5, 1.0]


def test_a_bad_answer_changes_seed_and_raises_temperature() -> None:
    """Each bad answer gets a new seed and a temperature that never falls."""
    request = Request(images=(), prompt="p", generation=Generation(seed=5, temperature=0.4))
    seeds, temperatures = set(), []
    for attempt in (1, 2, 3, 9):
        request, warning = RetryPolicy().ask_differently(
            request, BadAnswerError("x", kind="degenerate"), attempt
        )
        seeds.add(request.generation.seed)
        temperatures.append(request.generation.temperature)
        assert "degenerate" in warning
    assert len(seeds) == 4
    assert temperatures == sorted(temperatures)
    assert temperatures[0] >= 0.4


def test_thinking_is_turned_off_once() -> None:
    """A reply lost in thinking is retried without thinking; after that the seed changes."""
    request = Request(images=(), prompt="p")
    error = BadAnswerError("x", change="no_thinking")
    request, _ = RetryPolicy().ask_differently(request, error, 1)
    assert request.generation.thinking is False
    assert request.generation.seed is None
    request, _ = RetryPolicy().ask_differently(request, error, 2)
    assert request.generation.seed is not None


def test_a_smaller_picture_leaves_the_generation_unchanged() -> None:
    """A retry with a smaller picture does not change the seed."""
    request = Request(images=(), prompt="p")
    changed, warning = RetryPolicy().ask_differently(request, BadAnswerError("x", change="shrink"), 1)
    assert changed == request
    assert "smaller picture" in warning


@pytest.mark.parametrize("errors", [0, 1, 3])
async def test_attempts_leave_no_reference_cycle(errors: int) -> None:
    """The object that made the attempts is freed with them, without Python's search for cycles."""

    class Caller:
        failures = errors

        async def attempt(self) -> None:
            if self.failures:
                self.failures -= 1
                raise TransientError("x").with_traceback(None)

        def on_retry(self, *_: object) -> None:
            """Do nothing."""

    caller = Caller()
    gone = weakref.ref(caller)
    gc.disable()
    try:
        await policy().run(caller.attempt, caller.on_retry)
        del caller
        assert gone() is None
    finally:
        gc.enable()
