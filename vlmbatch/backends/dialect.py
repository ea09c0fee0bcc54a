"""How one server of OpenAI's wire wants the knobs of a question called, and what it was found to refuse."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from vlmbatch.records import Generation

_UNSUPPORTED = re.compile(r"unsupported (?:value|parameter): '(\w+)'")
TEMPLATE: Mapping[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
"""How servers that fill in a model's chat template are told not to let it think (vLLM, SGLang, llama.cpp)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What the token limit is called, what turns thinking off, and which knobs are left out.

    A server may refuse a knob that others want: api.openai.com takes a temperature for some models and
    answers 400 for others, and hosted ones refuse what they do not know. Which, no list of names would
    tell for long, so it is learnt from their refusal.
    """

    limit: str = "max_tokens"
    no_thinking: Mapping[str, Any] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def knobs(self, generation: Generation) -> dict[str, Any]:
        """The part of a request's body that shapes its answer."""
        knobs: dict[str, Any] = {self.limit: generation.max_tokens, "temperature": generation.temperature}
        if generation.seed is not None:
            knobs["seed"] = generation.seed
        if generation.thinking is False:
            knobs |= self.no_thinking
        return {name: value for name, value in knobs.items() if name not in self.without}

    def after(self, status: int, body: bytes) -> Self | None:
        """What to speak after this reply; None where it refuses no knob that could be left out."""
        if status not in (400, 422):
            return None
        told = body.decode("utf-8", errors="replace").replace("\\u0027", "'").lower()
        named = set(_UNSUPPORTED.findall(told))
        if self.limit == "max_tokens" and "max_tokens" in named and "max_completion_tokens" in told:
            return replace(self, limit="max_completion_tokens")
        refused = named & {"temperature", "seed"}
        refused |= {name for name in self.no_thinking if name in told}
        return replace(self, without=self.without | refused) if refused - self.without else None

    def warnings(self, generation: Generation) -> tuple[str, ...]:
        """What a person should know of an answer to a question from which knobs were left out."""
        if not self.without:
            return ()
        chosen = {"temperature": True, "seed": generation.seed is not None}
        left = [name for name, counts in chosen.items() if counts and name in self.without]
        return tuple(f"asked without --{name}, which this model does not take" for name in left)
