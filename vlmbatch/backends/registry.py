"""The table of backends. A row imports its module only when it is used."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vlmbatch.backends.http.auth import authorizes
from vlmbatch.backends.keys import OLLAMA_KEY, key_of
from vlmbatch.backends.litellm.deployments import Deployment
from vlmbatch.backends.ollama.options import own_options
from vlmbatch.backends.openai.servers import SERVER_TYPES, VLLM, VLLM_OR_OTHER, ServerType, server_type_at
from vlmbatch.config import RunConfig
from vlmbatch.config.given import given_names
from vlmbatch.config.spec import check_url, flag, redact
from vlmbatch.errors import BackendError, ConfigError
from vlmbatch.protocols import Backend, Catalogue

if TYPE_CHECKING:
    from vlmbatch.backends.auto import Candidate
    from vlmbatch.backends.ollama.backend import OllamaBackend

OLLAMA_URL = "http://127.0.0.1:11434"
VLLM_URL = VLLM.url
NO_ENDPOINT_HINT = (
    "start Ollama with: ollama serve, or name another server with --base-url, for example "
    "--base-url http://gpu1:8000/v1, or "
)
INSTALL_HINT = NO_ENDPOINT_HINT + (
    'install the embedded engine, which has a demonstration model: pip install "vlmbatch[embedded]"'
)
FILES_HINT = NO_ENDPOINT_HINT + "use the embedded demonstration model: --backend llama-cpp, without --model"


def open_backend(
    config: RunConfig, environ: Mapping[str, str] = os.environ, deployment: Deployment | None = None
) -> Backend:
    """The backend that the options name, for LiteLLM with this deployment. No request is sent yet.

    Raises:
        ConfigError: options contradict each other, or a key, model, price or valid URL is missing.
        MissingDependencyError: the engine's package is not installed.
    """
    if config.endpoint.backend not in SERVER_TYPES:
        _check_wire(config)
    if config.endpoint.option and config.endpoint.backend != "ollama":
        raise ConfigError(
            f"--option is for Ollama, and --backend {config.endpoint.backend} is or may be another server; "
            "set --backend ollama, or for a server with an OpenAI API use --extra-body"
        )
    if deployment is not None:
        return _litellm(config, environ, deployment)
    return BACKENDS[config.endpoint.backend](config, environ)


def _check_wire(config: RunConfig) -> None:
    """Raise ConfigError for options that only the OpenAI API has."""
    for name in ("extra_body", "mm_processor_kwargs", "file_urls"):
        if getattr(config.request, name):
            instead = "; set Ollama's own options with --option" if name == "extra_body" else ""
            raise ConfigError(
                f"{flag(name)} is for servers with an OpenAI API, and --backend {config.endpoint.backend} is "
                f"or may be another server; set --backend to one of {', '.join(SERVER_TYPES)}{instead}"
            )


def open_ollama(config: RunConfig, environ: Mapping[str, str] = os.environ) -> "OllamaBackend":
    """The Ollama backend for any --backend; it has more methods than Backend. See `open_backend`."""
    from vlmbatch.backends.ollama.backend import OllamaBackend
    from vlmbatch.backends.ollama.options import host_url

    options = config.endpoint
    named = options.url or environ.get("OLLAMA_HOST")
    typed, question, query = (named or OLLAMA_URL).partition("?")
    url = host_url(typed).removesuffix("/v1")  # an address for OpenAI clients; that API truncates prompts
    check_url(url, "--base-url" if options.url else "OLLAMA_HOST")
    return OllamaBackend(
        url + question + query,
        model=options.model,
        api_key=key_of(options, OLLAMA_KEY, environ, belongs=bool(named)),
        timeout_s=config.run.timeout,
        keep_alive=options.keep_alive,
        wire=config.request,
        options=own_options(options.option, config.generation.num_ctx),
        given=given_names(config),
    )


def _openai_backend(
    config: RunConfig, server_type: ServerType, url: str, *, key: str | None, owner: str | None = None
) -> Backend:
    from vlmbatch.backends.openai.backend import OpenAICompatibleBackend, api_url

    meant = server_type_at(server_type, url)
    return OpenAICompatibleBackend(
        api_url(url),
        server_type=replace(meant, request_format=meant.request_format.of_user(config)),
        model=config.endpoint.model,
        api_key=key,
        timeout_s=config.run.timeout,
        owner=owner,
        wire=config.request,
    )


def _openai_server(server_type: ServerType) -> Callable[[RunConfig, Mapping[str, str]], Backend]:
    """The function that opens a server of this type with its own URL and key."""

    def opened(config: RunConfig, environ: Mapping[str, str]) -> Backend:
        options = config.endpoint
        variable = server_type.url_variable or ""
        named = options.url or environ.get(variable)
        url = named or server_type.url
        check_url(url, "--base-url" if options.url else variable)
        belongs = bool(named) or server_type.hosted
        key = key_of(options, server_type.key_variable, environ, belongs=belongs)
        known = key or "@" in urlsplit(url).netloc or authorizes(config.request.headers)
        if server_type.hosted and url == server_type.url and not known:
            raise ConfigError(
                f"{urlsplit(url).hostname} needs a key; set {server_type.key_variable}, "
                "or set another URL with --base-url"
            )
        if config.request.file_urls and server_type_at(server_type, url).hosted:
            raise ConfigError(
                f"--file-urls is for a server on the same disk, and {redact(url)} is hosted; leave it out"
            )
        _require_price(config, server_type_at(server_type, url))
        return _openai_backend(config, server_type, url, key=key)

    return opened


def _require_price(config: RunConfig, server_type: ServerType) -> None:
    """Raise ConfigError if --max-cost would never be reached, since the cost of answers is unknown."""
    if config.run.max_cost is None or config.display.prices is not None:
        return
    if server_type.hosted and not server_type.reports_cost:
        raise ConfigError(
            f"--max-cost: {server_type.name} does not report the cost of answers; add --prices FILE"
        )


def _llama_cpp(config: RunConfig, _environ: Mapping[str, str]) -> Backend:
    from vlmbatch.backends.llama_cpp.backend import LlamaCppBackend

    options = config.endpoint
    if options.url:
        raise ConfigError(
            "--backend llama-cpp runs inside this process and takes no --base-url; "
            "for a llama.cpp server use --backend llama-server"
        )
    return LlamaCppBackend(
        model=options.model,
        mmproj=options.mmproj,
        num_ctx=config.generation.num_ctx,
        timeout_s=config.run.timeout,
    )


def _litellm(config: RunConfig, environ: Mapping[str, str], deployment: Deployment | None = None) -> Backend:
    from vlmbatch.backends.litellm.backend import EXAMPLES, LiteLLMBackend, require_installed

    require_installed()
    options = config.endpoint
    for name in ("ca_cert", "client_cert", "insecure"):
        if getattr(config.request, name):
            raise ConfigError(
                f"{flag(name)} has no effect on LiteLLM; set SSL_CERT_FILE, which LiteLLM reads"
            )
    if deployment is None:
        if options.model is None:
            raise ConfigError(f"--backend litellm needs a model; name it with --model, {EXAMPLES}")
        deployment = Deployment(name=options.model, model=options.model, key=options.api_key, url=options.url)
    return LiteLLMBackend(
        deployment,
        timeout_s=config.run.timeout,
        headers=config.request.headers,
        needs_price=config.run.max_cost is not None and config.display.prices is None,
        checks_vision=options.canary,
        given=given_names(config),
    )


def _auto(config: RunConfig, environ: Mapping[str, str]) -> Backend:
    """Ollama, then a vLLM; then the demonstration model, but only if neither model nor address is named."""
    from vlmbatch.backends.auto import AutoBackend, Candidate
    from vlmbatch.backends.llama_cpp.backend import is_installed

    options = config.endpoint
    if options.mmproj or (options.model or "").endswith(".gguf"):
        return _llama_cpp(config, environ)
    servers = _servers(config, environ)
    named = options.model or any(server.sure for server in servers)
    embedded = [Candidate(make=lambda: _llama_cpp(config, environ), sure=True, is_demo=True)]
    return AutoBackend([*servers, *(embedded if not named and is_installed() else [])], _no_endpoint_hint())


def servers(config: RunConfig, environ: Mapping[str, str] = os.environ) -> "list[Candidate]":
    """The possible endpoints of these options: the named one, else Ollama and then a vLLM or similar server.

    Raises ConfigError as `open_backend` does.
    """
    from vlmbatch.backends.auto import Candidate

    name = config.endpoint.backend
    if name == "auto":
        return _servers(config, environ)
    return [Candidate(make=lambda: BACKENDS[name](config, environ), sure=True)]


def catalogue_of(backend: Backend) -> Catalogue | None:
    """The backend as a Catalogue, or None if it is not one; call it after preflight."""
    from vlmbatch.backends.auto import AutoBackend

    engine = backend.inner if isinstance(backend, AutoBackend) else backend
    return engine if isinstance(engine, Catalogue) else None


def none_usable(refused: Sequence[BackendError], away: Sequence[BackendError]) -> BackendError:
    """The error if none of several endpoints is usable, with a hint."""
    from vlmbatch.backends.auto import combined_error

    return combined_error(refused, away, _no_endpoint_hint())


def _no_endpoint_hint() -> str:
    from vlmbatch.backends.llama_cpp.backend import is_installed

    return FILES_HINT if is_installed() else INSTALL_HINT


def _servers(config: RunConfig, environ: Mapping[str, str]) -> "list[Candidate]":
    from vlmbatch.backends.auto import Candidate

    options = config.endpoint
    named_ollama = bool(options.url or environ.get("OLLAMA_HOST"))
    named_openai = bool(options.url or environ.get("OPENAI_BASE_URL"))
    candidates = [Candidate(make=lambda: open_ollama(config, environ), sure=named_ollama)]
    if named_openai:
        vllm_or_other = _openai_server(VLLM_OR_OTHER)
        candidates.append(Candidate(make=lambda: vllm_or_other(config, environ), sure=True))
    else:  # any program may listen there: it must identify as vLLM, and gets no key from the environment
        key = options.api_key
        candidates.append(
            Candidate(
                make=lambda: _openai_backend(config, VLLM, VLLM_URL, key=key, owner="vllm"),
                sure=False,
                has_common_port=True,
            )
        )
    return candidates


BACKENDS: Mapping[str, Callable[[RunConfig, Mapping[str, str]], Backend]] = {
    "auto": _auto,
    "ollama": open_ollama,
    "llama-cpp": _llama_cpp,
    "litellm": _litellm,
    **{name: _openai_server(server_type) for name, server_type in SERVER_TYPES.items()},
}
