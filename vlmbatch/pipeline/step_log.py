"""Notes when the steps of a task begin and end."""

import time
from datetime import UTC, datetime

from vlmbatch.errors import BackendError
from vlmbatch.events import AskStep, ImageTraced, Step, StepName
from vlmbatch.records import Completion, Endpoint, Generation, Result


class StepLog:
    """The steps of one task so far. Each step begins at the end of the one before it, without a gap."""

    def __init__(self) -> None:
        self.started_at = datetime.now(UTC)
        """The start of the last request, or of the task if there was none."""
        self._asked_ns = time.monotonic_ns()
        self._wall_ns = time.time_ns() - self._asked_ns  # a clock that is set moves no step
        self._began_ns = self._since_ns = self._now_ns()
        self._name: StepName | None = None
        self._request: tuple[Endpoint, Generation] | None = None
        self._steps: list[Step] = []
        self._requests = 0

    @property
    def duration_s(self) -> float:
        """Seconds since `started_at`."""
        return (time.monotonic_ns() - self._asked_ns) / 1e9

    @property
    def last_error(self) -> str | None:
        """The kind of error with which the last request ended; None for an answer, and without a request."""
        return next((step.error for step in reversed(self._steps) if step.name == "ask"), None)

    def begin(self, name: StepName) -> None:
        """End the current step, if any, and begin this one."""
        self.end()
        self._name = name

    def ask(self, endpoint: Endpoint, generation: Generation) -> None:
        """Begin a request to this endpoint with these options."""
        self.begin("ask")
        self.started_at, self._asked_ns = datetime.now(UTC), time.monotonic_ns()
        self._request = endpoint, generation
        self._requests += 1

    def end(self, error: str | None = None, completion: Completion | None = None) -> None:
        """End the current step, if any: with an error, or for a request with its completion."""
        name, self._name, start_ns = self._name, None, self._since_ns
        if name is None:
            return
        self._since_ns = end_ns = self._now_ns()
        if name != "ask" or self._request is None:
            self._steps.append(Step(name=name, start_ns=start_ns, end_ns=end_ns, error=error))
            return
        endpoint, generation = self._request
        self._steps.append(
            AskStep(
                name=name,
                start_ns=start_ns,
                end_ns=end_ns,
                error=error,
                endpoint=endpoint,
                generation=generation,
                attempt=self._requests,
                completion=completion,
            )
        )

    def traced(self, image: str, outcome: Result | BaseException) -> ImageTraced:
        """End the last step with this outcome of the image, and return all steps."""
        result = outcome if isinstance(outcome, Result) else None
        error = _error(outcome)
        self.end(error)
        return ImageTraced(
            id=image,
            start_ns=self._began_ns,
            end_ns=self._now_ns(),
            steps=tuple(self._steps),
            result=result,
            error=error,
        )

    def _now_ns(self) -> int:
        return self._wall_ns + time.monotonic_ns()


def _error(outcome: Result | BaseException) -> str | None:
    """The kind of the failure, or the name of an exception that has no kind; None for an answer."""
    if isinstance(outcome, Result):
        return None if outcome.failure is None else outcome.failure.kind
    return outcome.kind if isinstance(outcome, BackendError) else type(outcome).__name__
