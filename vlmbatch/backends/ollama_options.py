"""Ollama's own options (--option NAME=VALUE): what they are, and which other flags set the same."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlmbatch.errors import ConfigError

KNOWN = frozenset(
    (
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"),
        *("num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n"),
        *("temperature", "repeat_penalty", "presence_penalty", "frequency_penalty", "stop"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline", "numa", "low_vram", "use_mlock"),
    )
)
"""What Ollama 0.33 and older ones take (api/types.go, Options and Runner); others it ignores in silence."""
FLAGS = {"num_predict": "--max-tokens", "temperature": "--temperature", "seed": "--seed"}


def own_options(typed: Sequence[str], num_ctx: int | None) -> dict[str, Any]:
    """What was typed, by name; `num_ctx` is that of --num-ctx.

    Raises:
        ConfigError: one is no NAME=VALUE, or another flag is for it.
    """
    options = dict(_split(text) for text in typed)
    for name, flag in FLAGS.items():
        if name in options:
            raise ConfigError(f"--option {name}: use {flag} for that")
    if num_ctx is not None and options.get("num_ctx", num_ctx) != num_ctx:
        raise ConfigError(
            f"--option num_ctx={options['num_ctx']} and --num-ctx {num_ctx} contradict each other; keep one"
        )
    return options


def _split(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--option {text} is no NAME=VALUE; write for example --option num_ctx=8192")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def unknown_names(options: Mapping[str, Any]) -> tuple[str, ...]:
    """A note for each that Ollama would ignore."""
    return tuple(_unknown(name) for name in options if name not in KNOWN)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"Ollama may not know --option {name}, and ignores what it does not know{hint}"
