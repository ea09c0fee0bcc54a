"""What models cost, out of a file of prices (--prices); it asks nobody."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbatch.errors import ConfigError
from vlmbatch.records import Usage


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
