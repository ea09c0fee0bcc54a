"""The options that the user gave, and the names under which an endpoint may refuse them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vlmbatch.config import RunConfig
from vlmbatch.config.endpoint import EndpointOptions
from vlmbatch.config.groups import GenerationOptions
from vlmbatch.config.spec import flag

TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens", "num_predict")
"""The names of the limit of an answer, at different servers."""
_GENERATION: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "max_tokens": TOKEN_LIMITS,
    "seed": ("seed",),
    "num_ctx": ("num_ctx",),
    "schema": ("response_format", "json_schema", "schema", "guided_json", "structured_outputs", "grammar"),
    "logprobs": ("logprobs", "top_logprobs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOption:
    """An option as the user typed it, for a message, and its names in a request or in a refusal."""

    shown: str
    names: tuple[str, ...]


def given_options(config: RunConfig) -> tuple[GivenOption, ...]:
    """The options of a request whose value is not the default."""
    return (*_of_generation(config), *_of_endpoint(config), *_of_body(config))


def given_names(config: RunConfig) -> frozenset[str]:
    """All names of these options."""
    return frozenset(name for option in given_options(config) for name in option.names)


def _of_generation(config: RunConfig) -> Iterator[GivenOption]:
    usual, chosen = GenerationOptions(), config.generation
    for name, names in _GENERATION.items():
        value = getattr(chosen, name)
        if value != getattr(usual, name):
            shown = "" if name == "schema" else f" {value:g}"
            yield GivenOption(shown=flag(name) + shown, names=names)
    if config.prompt.system is not None:
        yield GivenOption(shown="--system", names=("system", "role", "roles", "developer"))


def _of_endpoint(config: RunConfig) -> Iterator[GivenOption]:
    options = config.endpoint
    if options.keep_alive not in (None, EndpointOptions().keep_alive):
        yield GivenOption(shown=f"--keep-alive {options.keep_alive}", names=("keep_alive", "duration"))
    for typed in options.option:
        name, _, value = typed.partition("=")
        if value != "null":  # which leaves the option out
            yield GivenOption(shown=f"--option {typed}", names=(name.strip(),))


def _of_body(config: RunConfig) -> Iterator[GivenOption]:
    if config.request.mm_processor_kwargs is not None:
        names = ("mm_processor_kwargs", *json.loads(config.request.mm_processor_kwargs))
        yield GivenOption(shown="--mm-processor-kwargs", names=names)
    for name, value in extra_arguments(config).items():
        if value is not None:
            yield GivenOption(shown=f"{name} of --extra-body", names=(name,))


def extra_arguments(config: RunConfig) -> Mapping[str, object]:
    """The arguments of --extra-body; the value None leaves an argument out of the request."""
    arguments: Mapping[str, object] = json.loads(config.request.extra_body or "{}")
    return arguments
