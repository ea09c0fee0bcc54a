"""The cost of a run: every completion counts, good or bad, and --max-cost ends the run."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlmbatch.backends.forwarding import ForwardingBackend
from vlmbatch.backends.values import number
from vlmbatch.config.text_file import read_text
from vlmbatch.errors import BackendError, ConfigError
from vlmbatch.protocols import Backend, Tell, quiet
from vlmbatch.records import Completion, Endpoint, Request, Usage
from vlmbatch.strict_json import LENIENT

AS_SHOWN = "write it as docs/image-tokens.md shows"


class Budget:
    """Adds up the cost of a run or session in US dollars, with canaries and useless answers."""

    def __init__(self, most: float | None, stop: asyncio.Event, tell: Callable[[str], None]) -> None:
        """At `most` dollars `stop` is set and `tell` gets the reason; None is no limit."""
        self._most = most
        self._stop = stop
        self._tell = tell
        self._spent = 0.0
        self._known = False

    @property
    def spent(self) -> float | None:
        """The cost so far; None if no completion had a known cost."""
        return self._spent if self._known else None

    def spend(self, cost: float | None) -> None:
        """Count the cost of one completion."""
        if cost is None:
            return
        self._known = True
        self._spent += cost
        if self._most is not None and self._spent >= self._most and not self._stop.is_set():
            self._tell(
                f"${self._spent:.4f} are spent, and --max-cost is reached: no new image starts; "
                "the next run does the rest"
            )
            self._stop.set()

    def lose_count(self, place: str) -> None:
        """End a run with a limit, since the cost of an answer of this endpoint is unknown."""
        if self._most is not None and not self._stop.is_set():
            self._tell(
                f"--max-cost cannot be kept: {place} reported no usable cost or token counts for an answer; "
                "the run starts no new image; use another endpoint, or leave --max-cost out"
            )
            self._stop.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a model for each token, in US dollars."""

    input: float
    output: float

    def of(self, usage: Usage) -> float:
        """The cost of these tokens."""
        return self.input * usage.input_tokens + self.output * usage.output_tokens


class Prices:
    """A file of prices such as LiteLLM's model_prices_and_context_window.json.

    That is JSON: an object with a model's name for a key, and in it `input_cost_per_token` and
    `output_cost_per_token`. A name may stand behind its provider's, as in `openai/gpt-4o`.
    """

    def __init__(self, path: str) -> None:
        """Raises ConfigError if the file cannot be read."""
        self._path = path
        try:
            prices = LENIENT.decode(read_text(path))
        except OSError as error:
            raise ConfigError(
                f"--prices {path} cannot be read: {error.strerror}; check its path "
                "(docs/image-tokens.md shows such a file)"
            ) from error
        except RecursionError:
            raise ConfigError(f"--prices {path} is not JSON: it is nested too deeply; {AS_SHOWN}") from None
        except ValueError as error:
            raise ConfigError(f"--prices {path} is not JSON: {error}; {AS_SHOWN}") from error
        self._prices: Mapping[str, Any] = prices if isinstance(prices, dict) else {}

    def of(self, model: str) -> Price:
        """The price of this model; raises ConfigError if the file has none."""
        wanted = model.removesuffix(":latest")
        named = (name for name in self._prices if _means(name.removesuffix(":latest"), wanted))
        try:
            entry = self._prices[min(named, key=len)]
            return Price(
                input=_price(entry["input_cost_per_token"]), output=_price(entry["output_cost_per_token"])
            )
        except (KeyError, TypeError, ValueError) as error:  # also if no name is the model's
            example = {model: {"input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5}}
            raise ConfigError(
                f"--prices {self._path} has no usable price for {model}; "
                f"write for example {json.dumps(example)}"
            ) from error


def _price(value: object) -> float:
    """Dollars for a token; raises ValueError for anything but a number from 0 on."""
    dollars = number(value)
    if dollars is None or dollars < 0:
        raise ValueError(f"{value!r} is no price")
    return dollars


def _means(name: str, model: str) -> bool:
    return name == model or name.endswith(f"/{model}")


class MeteredBackend(ForwardingBackend):
    """A backend whose completions count towards a budget."""

    def __init__(self, backend: Backend, budget: Budget, prices: Prices | None) -> None:
        """`budget` adds up the costs; `prices` give them if the backend does not report any."""
        self._backend = backend
        self._budget = budget
        self._prices = prices
        self._model = ""
        self._tells_costs = False

    @property
    def inner(self) -> Backend:
        """See ForwardingBackend."""
        return self._backend

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """See protocols.Backend; raises ConfigError if the prices lack its model."""
        endpoint = await self._backend.preflight(tell)
        self._model = endpoint.model
        if self._prices is not None:
            self._prices.of(self._model)
        return endpoint

    async def complete(self, request: Request) -> Completion:
        """See protocols.Backend."""
        try:
            done = await self._backend.complete(request)
        except BackendError as error:
            if error.tokens is not None:
                read, written = error.tokens
                usage = Usage(input_tokens=read, output_tokens=written)
                error.cost = self._spend(error.cost, usage, owes_cost=error.owes_cost, answer="")
            raise
        cost = self._spend(done.cost, done.usage, owes_cost=done.owes_cost, answer=done.text)
        return done if cost == done.cost else replace(done, cost=cost)

    def _spend(self, told: float | None, usage: Usage, *, owes_cost: bool, answer: str) -> float | None:
        """Count an answer with the cost that the endpoint reports, else by the prices; returns the cost.

        An endpoint that has reported a cost owes one for each later answer.
        """
        cost = told
        self._tells_costs = self._tells_costs or told is not None
        owes_cost = owes_cost or (told is None and self._tells_costs)
        if told is None and self._prices is not None:
            owes_cost = not usage.input_tokens or bool(answer and not usage.output_tokens)
            cost = self._prices.of(self._model).of(usage) if usage != Usage() else None
        self._budget.spend(cost)
        if owes_cost:
            self._budget.lose_count(self.place)
        return cost
