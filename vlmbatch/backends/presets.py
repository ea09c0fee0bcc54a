"""The servers that speak OpenAI's wire: where each listens, which variables are for it, its ways."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from vlmbatch.backends.dialect import TEMPLATE, Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One kind of server.

    `name` stands in records; None is `vllm` where the model says that vLLM owns it, else `openai`.
    `url_variable` and `key_variable` are what its users set: a key is sent to no other place than the one
    that its variable is for. `slots` is how many requests at once are a good start. `metrics` says that it
    may tell at /metrics how many requests wait; `hosted` that images leave this machine, and a key is needed.
    `arguments` go with every request; `tells_cost`: what an answer cost stands beside its tokens.
    """

    name: str | None
    url: str = ""
    url_variable: str | None = None
    key_variable: str | None = None
    slots: int = 8
    dialect: Dialect = Dialect(no_thinking=TEMPLATE)
    metrics: bool = True
    hosted: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tells_cost: bool = False


OPENAI = Preset(
    name="openai",
    url="https://api.openai.com/v1",
    url_variable="OPENAI_BASE_URL",
    key_variable="OPENAI_API_KEY",
    # max_tokens is deprecated there, and an error for all models that reason
    dialect=Dialect(limit="max_completion_tokens"),
    metrics=False,
    hosted=True,
)
GENERIC = Preset(name="openai", url_variable="OPENAI_BASE_URL", key_variable="OPENAI_API_KEY")
VLLM = Preset(
    name="vllm",
    url="http://127.0.0.1:8000/v1",
    url_variable="OPENAI_BASE_URL",
    key_variable="OPENAI_API_KEY",
    slots=16,
)
VLLM_OR_OTHER = replace(VLLM, name=None)
EMBEDDED = Preset(name="llama-cpp", metrics=False)

PRESETS: Mapping[str, Preset] = {
    "vllm": VLLM,
    "openai": OPENAI,
    "llama-server": Preset(name="llama-server", url="http://127.0.0.1:8080/v1", slots=4),
    "lmstudio": Preset(
        name="lmstudio", url="http://127.0.0.1:1234/v1", slots=4, dialect=Dialect(), metrics=False
    ),
    "sglang": Preset(name="sglang", url="http://127.0.0.1:30000/v1", slots=16),
    "openrouter": Preset(
        name="openrouter",
        url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        dialect=Dialect(no_thinking={"reasoning": {"enabled": False}}),
        metrics=False,
        hosted=True,
        arguments={"usage": {"include": True}},
        tells_cost=True,
    ),
}
"""By the word of --backend."""


def preset_at(preset: Preset, url: str) -> Preset:
    """The preset that a server at this URL is asked by: only OpenAI itself has OpenAI's ways."""
    host = urlsplit(url).hostname or ""
    is_openai = host == "api.openai.com" or host.endswith(".api.openai.com")  # eu.api.openai.com and others
    if preset.name in ("openai", None) and is_openai:
        return OPENAI
    return GENERIC if preset is OPENAI else preset
