"""What answers when no --backend is given."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from backend_contract import closed_port, question
from endpoint import Endpoint, Model

from vlmbatch.backends import registry
from vlmbatch.backends.registry import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, FatalBackendError, UnavailableError, UnreachableError
from vlmbatch.protocols import Backend

BLIND = {"blind": Model(vision=False)}
MANY = {"a": Model(), "b": Model()}


def auto(environ: Mapping[str, str] | None = None, **options: object) -> Backend:
    """The backend of a command line without --backend."""
    return open_backend(RunConfig.of("photos", **options), environ or {})


@contextmanager
def defaults(monkeypatch: pytest.MonkeyPatch, ollama: str = "", vllm: str = "") -> Iterator[str]:
    """The default places moved to these URLs, so that no test meets what runs on this machine.

    Where none is given, nobody listens there; yields a URL of that kind.
    """
    with closed_port() as nowhere:
        monkeypatch.setattr(registry, "OLLAMA_URL", ollama or nowhere)
        monkeypatch.setattr(registry, "VLLM_URL", f"{vllm or nowhere}/v1")
        yield nowhere


async def test_ollama_comes_first(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both listen, Ollama is taken and vLLM is not asked."""
    with Endpoint() as vllm, defaults(monkeypatch, endpoint.url, vllm.url):
        async with auto() as backend:
            assert (await backend.preflight()).backend == "ollama"
            assert (await backend.complete(question())).text
            assert backend.concurrency == 2
    assert not vllm.requests


async def test_vllm_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ollama is not there, a vLLM on its default port is taken, with the key that was typed."""
    models = {"m": Model()}
    with Endpoint(models=models, api_key="typed-key-1") as vllm, defaults(monkeypatch, vllm=vllm.url):
        async with auto(api_key="typed-key-1") as backend:
            found = await backend.preflight()
            assert (await backend.complete(question())).text
            await backend.probe()
    assert (found.backend, found.url, found.model) == ("vllm", f"{vllm.url}/v1", "m")


async def test_stranger_gets_neither_key_nor_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on vLLM's port and does not say that it is vLLM is not asked, and hears no key."""
    models = {"m": Model()}
    with Endpoint(models=models, owned_by="someone") as stranger, defaults(monkeypatch, vllm=stranger.url):
        async with auto({"OPENAI_API_KEY": "meant-for-openai"}, model="m") as backend:
            with pytest.raises(UnavailableError, match="is not vllm"):
                await backend.preflight()
    assert [(r.path, r.headers.get("authorization")) for r in stranger.requests] == [("/v1/models", None)]


@pytest.mark.slow
async def test_demonstration_model_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens and nothing is named, the demonstration model answers, and says what it is."""
    with defaults(monkeypatch):
        async with auto() as backend:
            found = await backend.preflight()
            assert (await backend.complete(question("Describe this image."))).text
    assert (found.backend, found.model) == ("llama-cpp", "pixie-demo")
    assert "demonstration model" in found.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("models", [BLIND, {}], ids=["text models", "no models"])
async def test_ollama_without_eyes_is_passed_over(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Ollama that nobody named and that has no vision model leaves the answer to the next."""
    with Endpoint(models=models, speaks=["ollama"]) as blind, defaults(monkeypatch, blind.url):
        async with auto() as backend:
            assert (await backend.preflight()).backend == "llama-cpp"


@pytest.mark.parametrize("named", ["--model", "--base-url", "OLLAMA_HOST", "OPENAI_BASE_URL"])
async def test_demonstration_model_does_not_stand_in(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names a model or a place gets that or an error that says where it was looked for."""
    with defaults(monkeypatch) as nowhere:
        options = {"--model": {"model": "llava"}, "--base-url": {"base_url": nowhere}}.get(named, {})
        async with auto({named: nowhere}, **options) as backend:
            with pytest.raises(UnreachableError, match=f"no connection to {nowhere}") as caught:
                await backend.preflight()
    assert "start Ollama (ollama serve) or vLLM, say where with --base-url" in str(caught.value)


async def test_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the embedded engine, a first run ends with what to start or install."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with defaults(monkeypatch):
        async with auto() as backend:
            with pytest.raises(UnavailableError, match=r"start Ollama .* or install the embedded engine"):
                await backend.preflight()


async def test_several_vision_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several vision models are a question to the user, not a reason to ask somebody else."""
    with Endpoint(models=MANY) as ollama, Endpoint() as vllm, defaults(monkeypatch, ollama.url, vllm.url):
        async with auto() as backend:
            with pytest.raises(ConfigError, match="a:latest, b:latest; name one with --model"):
                await backend.preflight()
    assert not vllm.requests


async def test_model_that_only_the_second_has(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that Ollama does not have and vLLM has is asked of vLLM."""
    with Endpoint(models=MANY) as vllm, defaults(monkeypatch, endpoint.url, vllm.url):
        async with auto(model="b") as backend:
            assert (await backend.preflight()).backend == "vllm"


async def test_model_that_nobody_has(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that none of them has is told with what each has instead."""
    with Endpoint(models=MANY) as vllm, defaults(monkeypatch, endpoint.url, vllm.url):
        async with auto(model="tiny-visoin") as backend:
            with pytest.raises(FatalBackendError, match=r"nearest: tiny-vision.*; .*nearest: a, b") as caught:
                await backend.preflight()
    assert caught.value.kind == "model_not_found"


async def test_place_from_openai_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place in OPENAI_BASE_URL is asked with its key, and need not be vLLM."""
    with Endpoint(models={"m": Model()}, owned_by="someone", api_key="some-key-123") as endpoint:
        environ = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": "some-key-123"}
        with defaults(monkeypatch):
            async with auto(environ) as backend:
                found = await backend.preflight()
    assert (found.url, found.backend) == (f"{endpoint.url}/v1", "openai")


async def test_place_that_is_named_and_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody is Ollama and a server says that it loads, it is worth more patience than closed ports."""
    with Endpoint(routes={"/v1/models": "503-loading"}) as endpoint, defaults(monkeypatch):
        async with auto({"OPENAI_BASE_URL": f"{endpoint.url}/v1"}) as backend:
            with pytest.raises(UnavailableError, match="Loading model") as caught:
                await backend.preflight()
    assert not isinstance(caught.value, UnreachableError)


async def test_place_from_ollama_host(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place in OLLAMA_HOST is asked in front of the defaults."""
    with defaults(monkeypatch):
        async with auto({"OLLAMA_HOST": f"127.0.0.1:{endpoint.port}"}) as backend:
            assert (await backend.preflight()).url == endpoint.url


async def test_url_that_speaks_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """A --base-url where neither wire is used ends the run: it is wrong, not away."""
    with Endpoint(speaks=[]) as web, defaults(monkeypatch):
        async with auto(base_url=web.url) as backend:
            with pytest.raises(FatalBackendError, match="--base-url") as caught:
                await backend.preflight()
    assert caught.value.kind == "wrong_url"


async def test_refused_key_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that refuses the key, that is told, and not that it speaks no Ollama."""
    with Endpoint(speaks=["openai"], api_key="right-key-1") as endpoint, defaults(monkeypatch):
        endpoint.routes = {"/api/tags": "404-route"}
        async with auto(base_url=endpoint.url, api_key="wrong-key-1") as backend:
            with pytest.raises(FatalBackendError, match="refuses this client") as caught:
                await backend.preflight()
    assert caught.value.kind == "auth"
    assert "/v1?" not in str(caught.value)


@pytest.mark.parametrize("options", [{"model": "m.gguf"}, {"model": "m", "mmproj": "p.gguf"}])
async def test_files_mean_the_embedded_engine(
    options: dict[str, str], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .gguf file or a projector means the embedded engine, whoever else listens."""
    with defaults(monkeypatch, endpoint.url):
        assert auto(**options).name == "llama-cpp"
    assert not endpoint.requests


async def test_places_are_shown_before_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """All places that it would ask are shown in order, without a login."""
    with defaults(monkeypatch, ollama="http://me:secret@h:1", vllm="http://h:2"):
        assert auto(model="m").place == "ollama at http://h:1, else vllm at http://h:2/v1"
        assert auto().place.endswith(", else llama-cpp at in-process")
