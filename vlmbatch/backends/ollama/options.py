"""Ollama's own options (--option NAME=VALUE): their names, and the flags that set the same values."""

import difflib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlmbatch import strict_json
from vlmbatch.errors import ConfigError

KNOWN = frozenset(
    (
        *("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"),
        *("num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n"),
        *("temperature", "repeat_penalty", "presence_penalty", "frequency_penalty", "stop"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline", "numa", "low_vram", "use_mlock"),
    )
)
"""The options of Ollama 0.33 and older (api/types.go, Options and Runner); it silently ignores all others."""
_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?<![\d.])(\d++(?:\.\d*+)?|\.\d++)(ns|us|\u00b5s|ms|s|m|h)")
FLAGS = {"num_predict": "--max-tokens", "temperature": "--temperature", "seed": "--seed"}


def own_options(typed: Sequence[str], num_ctx: int | None) -> dict[str, Any]:
    """The typed options by name; `num_ctx` is the value of --num-ctx. NAME=null leaves an option out.

    Raises:
        ConfigError: an option is not NAME=VALUE, is no number of JSON, or another flag sets it.
    """
    options = dict(_split(text) for text in typed)
    for name, flag in FLAGS.items():
        if options.get(name) is not None:
            raise ConfigError(f"--option {name}: use {flag} for that")
    if num_ctx is not None and options.get("num_ctx", num_ctx) != num_ctx:
        raise ConfigError(
            f"--option num_ctx={options['num_ctx']} and --num-ctx {num_ctx} contradict each other; keep one"
        )
    return options


def _split(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--option {text} is not NAME=VALUE; write for example --option num_ctx=8192")
    name = name.strip()
    try:
        return name, strict_json.loads(value, unique_keys=True)
    except json.JSONDecodeError:
        return name, value  # a text does not need the quotes of JSON
    except ValueError as error:
        hint = (
            f"for a text write --option {name}='{json.dumps(value)}'" if len(value) <= 40 else "leave it out"
        )
        raise ConfigError(f"--option {name}: {error}; {hint}") from error


def unknown_names(options: Mapping[str, Any]) -> tuple[str, ...]:
    """A note for each option that Ollama would ignore."""
    return tuple(_unknown(name) for name in options if name not in KNOWN)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"Ollama may not know --option {name}, and it ignores unknown options{hint}"


def host_url(host: str) -> str:
    """The URL of OLLAMA_HOST, parsed like Ollama does (envconfig.Host in its source).

    The scheme is optional. The port is 11434, or 80 and 443 after http:// and https://. A path is kept, a
    query is dropped. 0.0.0.0 and ::, which a server listens on, become the loopback address.
    """
    scheme, found, rest = host.strip().strip("\"'").strip().partition("://")
    if not found:
        scheme, rest = ("https", "ollama.com:443") if scheme == "ollama.com" else ("http", scheme)
        port = "11434"
    else:
        port = "443" if scheme == "https" else "80"
    address, _, path = rest.partition("?")[0].partition("/")
    login, at, address = address.rpartition("@")
    name, typed = _split_port(address)
    name = name.strip("[]") or "127.0.0.1"
    if not (typed.isdecimal() and int(typed) <= 65535):
        typed = port
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(ip), str(ip))
        name = f"[{name}]" if ":" in name else name
    path = path.strip("/")
    return f"{scheme}://{login}{at}{name}:{typed}" + (f"/{path}" if path else "")


def _split_port(address: str) -> tuple[str, str]:
    """Host and port; the port is empty if there is none, as in `::1` or `[::1]`."""
    name, colon, typed = address.rpartition(":")
    if not colon or typed.endswith("]") or ("[" not in address and ":" in name):
        return address, ""
    return name, typed


def is_unload(keep_alive: str | None) -> bool:
    """Whether a chat without messages and with this duration unloads the model.

    Ollama unloads it for a duration of less than a second, in a number of seconds or in Go's form (`1h30m`).
    """
    if keep_alive is None or keep_alive.startswith("-"):  # a negative duration has no end
        return False
    try:
        return float(keep_alive) < 1
    except ValueError:
        parts = _DURATION.findall(keep_alive)
        return bool(parts) and sum(float(number) * _SECONDS[unit] for number, unit in parts) < 1
