"""Decides which endpoint gets which key from the environment: only an endpoint to which the key belongs.

A key from the environment goes to a host that the user named, or to the host of its provider. The URL of a
fallback does not count as named, since the endpoint before it may use the same variable: the fallback must
name the variable (openai:MODEL@URL#VARIABLE), or its URL must be at the provider or at the host that the
environment names.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from vlmbatch.backends.ollama.options import host_url
from vlmbatch.backends.openai.servers import SERVER_TYPES
from vlmbatch.config.endpoint import EndpointOptions, FallbackSpec
from vlmbatch.errors import ConfigError

WITHOUT_KEY = ""
"""The value of --api-key for an endpoint that gets no key, not even one from the environment."""
OLLAMA_KEY = "OLLAMA_API_KEY"
PROVIDERS = {
    "OPENAI_API_KEY": "api.openai.com",
    "OPENROUTER_API_KEY": "openrouter.ai",
    OLLAMA_KEY: "ollama.com",
}
"""The host to which the key in each variable belongs, and also all hosts below it (eu.api.openai.com)."""
_PORTS = {"http": 80, "https": 443}


def key_of(
    options: EndpointOptions, variable: str | None, environ: Mapping[str, str], *, belongs: bool
) -> str | None:
    """The key of --api-key; without one, that of the variable if it `belongs` to this endpoint."""
    if options.api_key is not None:
        return options.api_key or None
    return (environ.get(variable or "") or None) if belongs else None


def key_of_fallback(spec: FallbackSpec, environ: Mapping[str, str]) -> str | None:
    """The value of --api-key for this fallback; None means that a key from the environment belongs to it.

    Raises:
        ConfigError: the variable that it names is not set.
    """
    if spec.key_variable is None:
        return None if spec.url is None or _belongs(spec.backend, spec.url, environ) else WITHOUT_KEY
    if key := environ.get(spec.key_variable):
        return key
    raise ConfigError(
        f"--fallback {spec.backend} needs the environment variable {spec.key_variable}, which is not set; "
        "set it"
    )


def is_at_provider(url: str, variable: str) -> bool:
    """Whether the URL is at the provider to which the key in this variable belongs."""
    scheme, host, port = _origin(url) or ("", "", 0)
    own = PROVIDERS.get(variable)
    return own is not None and (scheme, port) == ("https", 443) and f".{host}".endswith(f".{own}")


def _belongs(backend: str, url: str, environ: Mapping[str, str]) -> bool:
    """Whether the key of this backend belongs to the URL: by its provider, or by the environment."""
    if backend == "ollama":
        named = environ.get("OLLAMA_HOST")
        return _is_own(host_url(url), OLLAMA_KEY, host_url(named) if named else "")
    server_type = SERVER_TYPES.get(backend)
    if server_type is None:  # LiteLLM: its provider is not known here
        return False
    return _is_own(url, server_type.key_variable or "", environ.get(server_type.url_variable or "", ""))


def _is_own(url: str, variable: str, named: str) -> bool:
    place = _origin(named)
    return is_at_provider(url, variable) or (place is not None and _origin(url) == place)


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for a text that is not a URL."""
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.scheme in _PORTS:
            return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
    except ValueError:
        pass
    return None
