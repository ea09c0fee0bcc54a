"""Estimates the time and tokens of a whole run from a few of its images, which are really sent."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.config.groups import InputOptions
from vlmbatch.config.run import OutputOptions
from vlmbatch.events import (
    ConcurrencyChanged,
    EndpointPaused,
    EndpointProven,
    EndpointResumed,
    Event,
    ImageFinished,
    Notice,
    PreflightDelayed,
    RunStarted,
)
from vlmbatch.protocols import Observer
from vlmbatch.records import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The outcome of the images that were sent; `failures` has one line for each failed image.

    `seconds` is the time from the passed canary to the last answer, with at most `concurrency` requests at
    once. `repeated` images were retried; `usage` counts their last request.
    """

    model: str
    answered: int
    failures: tuple[str, ...]
    repeated: int
    seconds: float
    concurrency: int
    usage: Usage

    def whole_s(self, images: int) -> float | None:
        """The seconds for this many images at this rate; None if no image was answered."""
        return self.seconds / self.answered * images if self.answered else None

    def tokens(self, images: int) -> Usage | None:
        """The tokens for this many images; None if no image was answered."""
        if not self.answered:
            return None
        share = images / self.answered
        return Usage(
            input_tokens=round(self.usage.input_tokens * share),
            output_tokens=round(self.usage.output_tokens * share),
        )


async def probe(
    config: RunConfig, images: Sequence[str], prompt: str, notify: Observer
) -> ProbeResult | None:
    """Process these images as a run would, without records; returns None if no image was started.

    Raises:
        VlmbatchError: an error that would end a run.
    """
    observer = _ProbeObserver(notify)
    few = replace(
        config,
        paths=tuple(f"./{image}" if image == "-" else image for image in images),
        prompt=replace(config.prompt, prompt=prompt, prompt_file=None),
        input=InputOptions(max_bytes=config.input.max_bytes),
        output=OutputOptions(dedupe=False),
    )
    results = [result async for result in Batch(few, [observer])]
    if not results or observer.model is None:
        return None
    return ProbeResult(
        model=observer.model,
        answered=sum(result.ok for result in results),
        failures=tuple(
            f"{result.id}: {result.failure.kind}: {result.failure.message}"
            for result in results
            if result.failure is not None
        ),
        repeated=sum(result.attempts > 1 for result in results),
        seconds=observer.last - observer.began,
        concurrency=min(observer.concurrency, len(results)),
        usage=sum((r.completion.usage for r in results if r.completion), Usage()),
    )


class _ProbeObserver:
    """Measures the events of a run, and passes on those that the user should see."""

    def __init__(self, notify: Observer) -> None:
        self.model: str | None = None
        self.concurrency = 0
        self.began = self.last = time.monotonic()
        self._notify = notify

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        match event:
            case RunStarted(endpoint=endpoint):
                self.model = endpoint.model
                self.concurrency = event.concurrency
            case ConcurrencyChanged(concurrency=concurrency):
                self.concurrency = max(self.concurrency, concurrency)
            case EndpointProven():
                self.began = self.last = time.monotonic()
            case ImageFinished():
                self.last = time.monotonic()
            case PreflightDelayed() | Notice() | EndpointPaused() | EndpointResumed():
                self._notify(event)
