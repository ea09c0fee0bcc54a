"""What a whole run will take, reckoned from a few of its images, which are really asked about."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError
from vlmbatch.events import (
    ConcurrencyChanged,
    EndpointPaused,
    EndpointProven,
    EndpointResumed,
    Event,
    ImageFinished,
    Notice,
    RunStarted,
)
from vlmbatch.option_groups import InputOptions
from vlmbatch.protocols import Observer
from vlmbatch.records import Usage
from vlmbatch.run_options import OutputOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of the images that were asked about; `failures` say which were not answered, and why not.

    `seconds` is from when the endpoint was proven to the last answer, with `concurrency` requests at once at
    most; `repeated` images were asked about more than once, and `usage` counts the last time.
    """

    model: str
    answered: int
    failures: tuple[str, ...]
    repeated: int = 0
    seconds: float
    concurrency: int
    usage: Usage

    def whole_s(self, images: int) -> float | None:
        """How many seconds so many images take at this pace; None where none was answered."""
        return self.seconds / self.answered * images if self.answered else None

    def tokens(self, images: int) -> Usage | None:
        """What so many images cost; None where none was answered."""
        if not self.answered:
            return None
        share = images / self.answered
        return Usage(
            input_tokens=round(self.usage.input_tokens * share),
            output_tokens=round(self.usage.output_tokens * share),
        )


async def probe(config: RunConfig, images: Sequence[str], prompt: str, notify: Observer) -> Probe | None:
    """Ask about these images as a run would, and keep nothing but what they took; None where none was begun.

    Raises:
        VlmbatchError: what would end a run.
    """
    hear = _Ear(notify)
    few = replace(
        config,
        paths=tuple(f"./{image}" if image == "-" else image for image in images),
        prompt=replace(config.prompt, prompt=prompt, prompt_file=None),
        input=InputOptions(max_bytes=config.input.max_bytes),
        output=OutputOptions(dedupe=False),
    )
    results = [result async for result in Batch(few, [hear])]
    if not results or hear.model is None:
        return None
    return Probe(
        model=hear.model,
        answered=sum(result.ok for result in results),
        failures=tuple(
            f"{result.id}: {result.failure.kind}: {result.failure.message}"
            for result in results
            if result.failure is not None
        ),
        repeated=sum(result.attempts > 1 for result in results),
        seconds=hear.last - hear.began,
        concurrency=min(hear.concurrency, len(results)),
        usage=sum((r.completion.usage for r in results if r.completion), Usage()),
    )


class _Ear:
    """Hears what a run tells, and passes on what a person should know."""

    def __init__(self, notify: Observer) -> None:
        self.model: str | None = None
        self.concurrency = 0
        self.began = self.last = time.monotonic()
        self._notify = notify

    def __call__(self, event: Event) -> None:
        """Hear an event."""
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
            case Notice() | EndpointPaused() | EndpointResumed():
                self._notify(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs for each token, in dollars."""

    input: float
    output: float

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        return self.input * usage.input_tokens + self.output * usage.output_tokens


class Prices:
    """A file of prices such as LiteLLM's model_prices_and_context_window.json.

    That is JSON: an object with a model's name for a key, and in it `input_cost_per_token` and
    `output_cost_per_token`. A name may stand behind its provider's, as in `openai/gpt-4o`.
    """

    def __init__(self, path: str) -> None:
        """Raises ConfigError where it cannot be read."""
        self._path = path
        try:
            prices = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"--prices {path} cannot be read: {error.strerror}; docs/image-tokens.md shows such a file"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"--prices {path} is not JSON: {error}") from error
        self._prices: Mapping[str, Any] = prices if isinstance(prices, dict) else {}

    def of(self, model: str) -> Price:
        """The price of this model; raises ConfigError where the file has none."""
        wanted = model.removesuffix(":latest")
        named = (name for name in self._prices if _means(name.removesuffix(":latest"), wanted))
        try:
            entry = self._prices[min(named, key=len)]
            return Price(
                input=float(entry["input_cost_per_token"]), output=float(entry["output_cost_per_token"])
            )
        except (KeyError, TypeError, ValueError) as error:  # also where no name is that of the model
            example = {model: {"input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5}}
            raise ConfigError(
                f"--prices {self._path} has no price for {model}; add for example {json.dumps(example)}"
            ) from error


def _means(name: str, model: str) -> bool:
    return name == model or name.endswith(f"/{model}")
