"""The deployments of a model for LiteLLM: from the options, or from the config.yaml of LiteLLM's proxy."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmbatch.config.text_file import read_text
from vlmbatch.errors import ConfigError, MissingDependencyError

_ENVIRON = "os.environ/"
_NOT_PASSED = ("model", "api_key", "api_base", "base_url", "rpm", "tpm", "weight", "order", "max_retries",
               "num_retries", "timeout", "stream_timeout", "tags")  # fmt: skip
"""Parameters of a deployment that have a field here, or that control only LiteLLM's own proxy and retries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One model at one URL. `name` is shown to users, `extra` is sent with each request."""

    name: str
    model: str
    key: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def deployments_in(path: str, name: str | None, environ: Mapping[str, str]) -> list[Deployment]:
    """All deployments of the model of this name in a config.yaml of LiteLLM's proxy; blocks.

    `name` None means the only model of the file.

    Raises:
        ConfigError: the file cannot be read, has no model_list or no such name, or needs an environment
            variable that is not set.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    where = f"--litellm-config {path}"
    for entry in _model_list(path, where):
        parameters = entry.get("litellm_params")
        if not (isinstance(entry.get("model_name"), str) and isinstance(parameters, dict)):
            raise ConfigError(
                f"{where}: each entry of model_list needs model_name and litellm_params; add them"
            )
        if not isinstance(parameters.get("model"), str):
            raise ConfigError(f"{where}: {entry['model_name']} has no model in its litellm_params; add it")
        groups.setdefault(entry["model_name"], []).append(parameters)
    if name is None and len(groups) == 1:
        name = next(iter(groups))
    if name is None:
        raise ConfigError(f"{where} has {', '.join(groups)}; name one with --model")
    if name not in groups:
        near = difflib.get_close_matches(name, groups, n=3, cutoff=0.3) or list(groups)[:3]
        raise ConfigError(f"{where} has no model {name!r}; name one with --model; nearest: {', '.join(near)}")
    return [_deployment(where, name, parameters, environ) for parameters in groups[name]]


def _model_list(path: str, where: str) -> list[Mapping[str, Any]]:
    try:
        import yaml  # comes with LiteLLM
    except ImportError as error:
        raise MissingDependencyError(
            'LiteLLM is not installed; install it with: pip install "vlmbatch[litellm]"'
        ) from error
    try:
        content = yaml.safe_load(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"{where} cannot be read: {reason}; name a config.yaml of LiteLLM's proxy"
        ) from error
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{where} is not YAML: {told}; correct this line") from error
    listed = content.get("model_list") if isinstance(content, dict) else None
    if not (isinstance(listed, list) and listed and all(isinstance(entry, dict) for entry in listed)):
        raise ConfigError(
            f"--litellm-config {path} has no model_list; it must be a config.yaml of LiteLLM's proxy"
        )
    return listed


def _deployment(
    where: str, name: str, parameters: Mapping[str, Any], environ: Mapping[str, str]
) -> Deployment:
    resolved = {key: _resolved(where, value, environ) for key, value in parameters.items()}
    return Deployment(
        name=name,
        model=str(resolved["model"]),
        key=_text(resolved.get("api_key")),
        url=_text(resolved.get("api_base") or resolved.get("base_url")),
        extra={key: value for key, value in resolved.items() if key not in _NOT_PASSED},
    )


def _resolved(where: str, value: object, environ: Mapping[str, str]) -> object:
    """The value itself, or the value of the environment variable that it names."""
    if not (isinstance(value, str) and value.startswith(_ENVIRON)):
        return value
    variable = value.removeprefix(_ENVIRON)
    if not environ.get(variable):
        raise ConfigError(f"{where} needs the environment variable {variable}, which is not set; set it")
    return environ[variable]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
