"""The table of engines. A row imports its module only when it is used."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError
from vlmbatch.options import check_url
from vlmbatch.protocols import Backend

OLLAMA_URL = "http://127.0.0.1:11434"
VLLM_URL = "http://127.0.0.1:8000/v1"
OPENAI_URL = "https://api.openai.com/v1"
NOBODY_HINT = "start Ollama (ollama serve) or vLLM, say where with --base-url, or "
INSTALL_HINT = NOBODY_HINT + 'install the embedded engine: pip install "vlmbatch[embedded]"'
FILES_HINT = NOBODY_HINT + "name files for the embedded engine: --model PATH.gguf --mmproj PATH.gguf"


def open_backend(config: RunConfig, environ: Mapping[str, str] = os.environ) -> Backend:
    """The backend that the options name. Nothing is contacted yet.

    Raises:
        ConfigError: the options or OLLAMA_HOST, OPENAI_BASE_URL do not fit together.
        MissingDependencyError: the engine's package is not installed.
    """
    return BACKENDS[config.endpoint.backend](config, environ)


def _ollama(config: RunConfig, environ: Mapping[str, str]) -> Backend:
    with _plain_environment():
        from vlmbatch.backends.ollama import OllamaBackend
    from vlmbatch.backends.ollama_host import host_url

    options = config.endpoint
    typed, question, query = (options.url or environ.get("OLLAMA_HOST") or OLLAMA_URL).partition("?")
    url = host_url(typed).removesuffix("/v1")  # typed for OpenAI clients, which would let it truncate prompts
    check_url(url, "--base-url" if options.url else "OLLAMA_HOST")
    return OllamaBackend(
        url + question + query,
        model=options.model,
        api_key=options.api_key or environ.get("OLLAMA_API_KEY"),
        timeout_s=config.run.timeout,
        keep_alive=options.keep_alive,
    )


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Hide variables that the ollama package stumbles over: it makes a client when it is imported.

    That fails over forms of OLLAMA_HOST that Ollama takes, and over proxies and certificates that a
    client for this machine does not use.
    """
    stumbling = ("OLLAMA_HOST", "SSL_CERT_FILE", "SSL_CERT_DIR")
    names = [name for name in os.environ if name in stumbling or name.upper().endswith("_PROXY")]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _served(
    config: RunConfig, url: str, *, name: str | None, key: str | None, slots: int, owner: str | None = None
) -> Backend:
    from vlmbatch.backends.openai_compatible import OpenAICompatibleBackend, api_url

    return OpenAICompatibleBackend(
        api_url(url),
        name=name,
        model=config.endpoint.model,
        api_key=key,
        timeout_s=config.run.timeout,
        concurrency=slots,
        owner=owner,
    )


def _vllm(config: RunConfig, environ: Mapping[str, str]) -> Backend:
    url, key = _openai_place(config, environ, VLLM_URL)
    return _served(config, url, name="vllm", key=key, slots=16)


def _vllm_or_other(config: RunConfig, environ: Mapping[str, str]) -> Backend:
    """A server that says itself whether it is vLLM."""
    url, key = _openai_place(config, environ, VLLM_URL)
    return _served(config, url, name=None, key=key, slots=16)


def _openai(config: RunConfig, environ: Mapping[str, str]) -> Backend:
    url, key = _openai_place(config, environ, OPENAI_URL)
    if url == OPENAI_URL and not key:
        raise ConfigError(
            "api.openai.com needs a key; set OPENAI_API_KEY, or say another place with --base-url"
        )
    return _served(config, url, name="openai", key=key, slots=8)


def _openai_place(config: RunConfig, environ: Mapping[str, str], default: str) -> tuple[str, str | None]:
    """URL and key the way OpenAI clients find them."""
    options = config.endpoint
    url = options.url or environ.get("OPENAI_BASE_URL") or default
    check_url(url, "--base-url" if options.url else "OPENAI_BASE_URL")
    return url, options.api_key or environ.get("OPENAI_API_KEY") or None


def _llama_cpp(config: RunConfig, _environ: Mapping[str, str]) -> Backend:
    from vlmbatch.backends.llama_cpp import LlamaCppBackend

    options = config.endpoint
    if options.url:
        raise ConfigError(
            "--backend llama-cpp runs inside this process and takes no --base-url; "
            "for a llama.cpp server use --backend openai"
        )
    return LlamaCppBackend(
        model=options.model,
        mmproj=options.mmproj,
        num_ctx=config.generation.num_ctx,
        timeout_s=config.run.timeout,
    )


def _auto(config: RunConfig, environ: Mapping[str, str]) -> Backend:
    """Ollama, then a vLLM, then the demonstration model, but that only where nothing at all is named."""
    from vlmbatch.backends.auto import AutoBackend, Candidate
    from vlmbatch.backends.llama_cpp import is_installed

    options = config.endpoint
    if options.mmproj or (options.model or "").endswith(".gguf"):
        return _llama_cpp(config, environ)
    named_ollama = bool(options.url or environ.get("OLLAMA_HOST"))
    named_openai = bool(options.url or environ.get("OPENAI_BASE_URL"))
    candidates = [Candidate(make=lambda: _ollama(config, environ), sure=named_ollama)]
    if named_openai:
        candidates.append(Candidate(make=lambda: _vllm_or_other(config, environ), sure=True))
    else:  # a stranger may listen there: it must say that it is vLLM, and gets no key of somebody else
        key = options.api_key
        candidates.append(
            Candidate(
                make=lambda: _served(config, VLLM_URL, name="vllm", key=key, slots=16, owner="vllm"),
                sure=False,
            )
        )
    named = options.model or named_ollama or named_openai
    if not named and is_installed():
        candidates.append(Candidate(make=lambda: _llama_cpp(config, environ), sure=True))
    return AutoBackend(candidates, FILES_HINT if is_installed() else INSTALL_HINT)


BACKENDS: Mapping[str, Callable[[RunConfig, Mapping[str, str]], Backend]] = {
    "auto": _auto,
    "ollama": _ollama,
    "vllm": _vllm,
    "openai": _openai,
    "llama-cpp": _llama_cpp,
}
