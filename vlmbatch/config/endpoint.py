"""The options of the endpoint: which server, model and key a run uses, and its fallbacks."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vlmbatch.config.spec import check_url, nearest, option, redact, require
from vlmbatch.errors import ConfigError
from vlmbatch.records import FallbackReason

BackendName = Literal[
    "auto",
    "ollama",
    "vllm",
    "llama-server",
    "lmstudio",
    "sglang",
    "openai",
    "openrouter",
    "llama-cpp",
    "litellm",
]
"""The values of --backend."""


_KEEP_ALIVE = re.compile(r"[-+]?(\d+|((\d+(\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)")
"""A number of seconds, or a duration of Go (time.ParseDuration), whose longest unit is the hour."""
REASONS: tuple[FallbackReason, ...] = get_args(FallbackReason)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""The name of an environment variable. Few keys look like one, and a message shows no other text after #."""
_PLAIN_NAME = re.compile(r"\w[\w.@+-]*(/\w[\w.@+-]*)?(:[\w.@+-]+)?", re.ASCII)
_HUBS = ("hf.co/", "huggingface.co/")
_CLOUD = ("-cloud", ":cloud")
"""The ends of the names of models that Ollama runs in its cloud."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackSpec:
    """One --fallback, written as `litellm:gpt-4o`, `ollama:llava:7b@URL` or `openai:m@URL#VARIABLE`.

    `key_variable` is the environment variable with its key.
    """

    backend: BackendName
    model: str | None
    url: str | None
    key_variable: str | None = None

    @classmethod
    def of(cls, text: str) -> "FallbackSpec":
        """Parse the flag; raises ConfigError for an unknown backend, or for a wrong URL after @http."""
        named, at, place = text.partition("@http")
        address, hash_sign, variable = place.partition("#")
        backend, _, model = named.partition(":")
        known = [name for name in get_args(BackendName) if name != "auto"]
        if backend not in known:
            raise ConfigError(
                f"--fallback {named} names no backend; write for example litellm:gpt-4o or "
                f"ollama:qwen2.5vl@http://127.0.0.1:11434 with one of {', '.join(known)}"
            )
        url = f"http{address}" if at else None
        if url is not None:
            check_url(url, "--fallback")
            require(
                not hash_sign or _VARIABLE.fullmatch(variable) is not None,
                f"--fallback {named}@{redact(url)}: after # write the name of the environment variable that "
                "has the key, for example #GATEWAY_KEY",
            )
        return cls(
            backend=backend,  # type: ignore[arg-type]  # just checked
            model=model or None,
            url=url,
            key_variable=variable or None,
        )


def parse_reasons(text: str) -> str:
    """Parse `unavailable`, `rejected` and `bad-answer`, separated by commas; returns them in that order."""
    words = {word.strip() for word in text.split(",")} - {""}
    if not words or not words <= set(REASONS):
        raise ValueError(f"{text!r} is not known; write one or more of {','.join(REASONS)}")
    return ",".join(word for word in REASONS if word in words)


def is_plain_name(model: str) -> bool:
    """Whether a --model is only a name: no file, no address, no download, and no model in Ollama's cloud."""
    name = model.lower()
    return (
        _PLAIN_NAME.fullmatch(name) is not None
        and ".gguf" not in name
        and not name.startswith(_HUBS)
        and not name.endswith(_CLOUD)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """Which endpoint and model a run uses, and its fallbacks."""

    model: str | None = option(
        None,
        "The model: its name at the endpoint. With --backend llama-cpp: a .gguf file or hf.co/OWNER/REPO.",
        section="Options to know first",
        short="-m",
        metavar="NAME",
        shown_default="the endpoint's only vision model",
        harmless=is_plain_name,
    )
    backend: BackendName = option(
        "auto",
        f"The engine that runs the model: {', '.join(get_args(BackendName))}. "
        "auto: Ollama, else vLLM, else the built-in demonstration model.",
        section="Options to know first",
        short="-b",
        metavar="NAME",
        choices=get_args(BackendName),
    )
    base_url: tuple[str, ...] = option(
        (),
        "The address of the endpoint, for example http://127.0.0.1:8000/v1, or a file with one URL per line. "
        "Several endpoints share the images (repeatable).",
        section="Options to know first",
        metavar="URL",
        secret=True,  # it may hold a password
    )
    api_key: str | None = option(
        None,
        "The API key of the endpoint. Safer: set the variable VLMBATCH_API_KEY, or OPENAI_API_KEY, or for "
        "openrouter OPENROUTER_API_KEY.",
        metavar="KEY",
        secret=True,
    )
    mmproj: str | None = option(
        None, "The vision projector that belongs to a .gguf model (llama-cpp).", metavar="FILE"
    )
    litellm_config: str | None = option(
        None,
        "The config.yaml of LiteLLM's proxy. --model is a name in it; its deployments share the images.",
        metavar="FILE",
    )
    keep_alive: str | None = option(
        "30m",
        "How long Ollama keeps the model in memory after an answer. -1: always.",
        metavar="TIME",
        harmless=True,
    )
    canary: bool = option(
        True,
        "Skip the test at the start that shows whether pictures reach the model.",
    )

    fallback: tuple[str, ...] = option(
        (),
        "Send an image to this model if the endpoint fails. Examples: litellm:gpt-4o, ollama:llava@URL, "
        "openai:MODEL@URL#VARIABLE (VARIABLE holds the API key). Repeatable: a second fallback is used if "
        "the first one fails.",
        section="When something fails",
        metavar="BACKEND:MODEL",
        secret=True,  # its URL may hold a password
    )
    fallback_on: str = option(
        ",".join(REASONS),
        "The failures for which a fallback is used: one or more of these words, with commas.",
        section="When something fails",
        metavar="REASONS",
        words=REASONS,
        parse=parse_reasons,
    )

    unload: bool = option(False, "Remove the model from Ollama's memory when the run ends.")
    option: tuple[str, ...] = option(  # the last field: its name hides the function option()
        (),
        "Set an option of Ollama, for example top_k=20 or repeat_penalty=1.1 (repeatable).",
        section="Question and answer",
        metavar="NAME=VALUE",
        harmless=True,
    )

    def __post_init__(self) -> None:
        require(
            self.litellm_config is None or "litellm" in (self.backend, *self._fallback_backends),
            "--litellm-config works only with --backend litellm or --fallback litellm:NAME; add one of them",
        )
        names = get_args(BackendName)
        near = nearest(self.backend, names, "")
        require(
            self.backend in names,
            f"--backend {self.backend} is not known; choose one of {', '.join(names)}{near}",
        )
        require(
            not self.keep_alive or _KEEP_ALIVE.fullmatch(self.keep_alive) is not None,
            f"--keep-alive {self.keep_alive} is not a duration that Ollama accepts; write seconds, or a "
            "number with s, m or h, for example 300, 30m, 1h30m or 24h, or -1 to keep the model loaded",
        )
        for url in self.base_url:
            if not is_file_of_urls(url):
                check_url(url, "--base-url")
        for text in self.fallback:
            FallbackSpec.of(text)

    @property
    def url(self) -> str | None:
        """The first --base-url, or None if none is set."""
        return self.base_url[0] if self.base_url else None

    @property
    def _fallback_backends(self) -> tuple[str, ...]:
        return tuple(text.partition(":")[0] for text in self.fallback)

    @property
    def reasons(self) -> frozenset[FallbackReason]:
        """The reasons for which a fallback is used (--fallback-on)."""
        return frozenset(word for word in REASONS if word in self.fallback_on.split(","))


def is_file_of_urls(text: str) -> bool:
    """Whether a --base-url names a file."""
    return "://" not in text and Path(text).is_file()
