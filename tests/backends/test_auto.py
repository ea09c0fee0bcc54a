"""The choice of the endpoint without --backend."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from backend_contract import closed_port, question
from endpoint import Endpoint, Model
from loop_clock import LoopClock, skipping

from vlmbatch.backends import registry
from vlmbatch.backends.auto import UNNAMED_S
from vlmbatch.backends.http import hints
from vlmbatch.backends.registry import open_backend
from vlmbatch.commands.models import take_inventory
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
    """Move the default addresses to these URLs, so that no test uses a server of this machine.

    An address without a URL becomes a closed port; yields the URL of that port.
    """
    with closed_port() as nowhere:
        monkeypatch.setattr(registry, "OLLAMA_URL", ollama or nowhere)
        monkeypatch.setattr(registry, "VLLM_URL", f"{vllm or nowhere}/v1")
        yield nowhere


async def test_ollama_comes_first(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """If both are up, Ollama is chosen and vLLM gets no request."""
    with Endpoint() as vllm, defaults(monkeypatch, endpoint.url, vllm.url):
        async with auto() as backend:
            assert (await backend.preflight()).backend == "ollama"
            assert (await backend.complete(question())).text
            assert backend.concurrency == 2
    assert not vllm.requests


async def test_a_pause_of_the_process_changes_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sleeps longer than each time limit still reads the reply of Ollama, and chooses it."""
    clock = LoopClock()
    with (
        Endpoint(routes={"/api/tags": "slow:0.3"}) as ollama,
        Endpoint() as vllm,
        defaults(monkeypatch, ollama.url, vllm.url),
    ):
        async with auto() as backend:
            preflight = asyncio.create_task(backend.preflight())
            await asyncio.to_thread(ollama.until, lambda: ollama.requests)
            clock.skip(2 * UNNAMED_S)
            found = await preflight
    assert (found.backend, found.notes) == ("ollama", ())
    assert not vllm.requests


async def test_vllm_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ollama is down, a vLLM on its default port is chosen, with the typed key."""
    models = {"m": Model()}
    with Endpoint(models=models, api_key="typed-key-1") as vllm, defaults(monkeypatch, vllm=vllm.url):
        async with auto(api_key="typed-key-1") as backend:
            found = await backend.preflight()
            assert (await backend.complete(question())).text
            await backend.probe()
    assert (found.backend, found.url, found.model) == ("vllm", f"{vllm.url}/v1", "m")


async def test_other_program_gets_neither_key_nor_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program on vLLM's port that does not identify as vLLM gets neither requests nor a key."""
    models = {"m": Model()}
    with Endpoint(models=models, owned_by="someone") as stranger, defaults(monkeypatch, vllm=stranger.url):
        async with auto({"OPENAI_API_KEY": "meant-for-openai"}, model="m") as backend:
            with pytest.raises(UnavailableError, match="is not vllm"):
                await backend.preflight()
    assert [(r.path, r.headers.get("authorization")) for r in stranger.requests] == [("/v1/models", None)]


@pytest.mark.slow
async def test_demonstration_model_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no server is up and none is named, the demonstration model answers, and a note says so."""
    with defaults(monkeypatch):
        async with auto() as backend:
            found = await backend.preflight()
            assert (await backend.complete(question("Describe this image."))).text
    assert (found.backend, found.model) == ("llama-cpp", "pixie-demo")
    assert "demonstration model" in found.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("models", [BLIND, {}], ids=["text models", "no models"])
async def test_ollama_without_vision_is_skipped(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unnamed Ollama without a vision model is skipped for the next candidate."""
    with Endpoint(models=models, speaks=["ollama"]) as blind, defaults(monkeypatch, blind.url):
        async with auto() as backend:
            assert (await backend.preflight()).backend == "llama-cpp"


@pytest.mark.parametrize("named", ["--model", "--base-url", "OLLAMA_HOST", "OPENAI_BASE_URL"])
async def test_demonstration_model_is_no_replacement(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a model or an address is named, the demonstration model does not replace it."""
    with defaults(monkeypatch) as nowhere:
        options = {"--model": {"model": "llava"}, "--base-url": {"base_url": nowhere}}.get(named, {})
        async with auto({named: nowhere}, **options) as backend:
            with pytest.raises(UnreachableError, match=f"no connection to {nowhere}") as caught:
                await backend.preflight()
    assert str(caught.value).startswith("no model server answers: no connection to ")
    assert "; start Ollama with: ollama serve, or name another server with --base-url" in str(caught.value)


async def test_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server and the embedded engine, the error says what to start or install."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with defaults(monkeypatch):
        async with auto() as backend:
            with pytest.raises(UnavailableError, match=r"start Ollama .* or install the embedded engine"):
                await backend.preflight()


ODD = ("hang", "500", "503-loading", "429", "html200", "body:[]", "401", "rst", "status:501")


@pytest.mark.parametrize("mode", ODD)
@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
async def test_an_odd_server_never_leads_to_the_demonstration_model(
    path: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on a default port that hangs or answers oddly ends the search with an error that names it."""
    name = "ollama" if path == "/api/tags" else "vllm"
    with (
        Endpoint(routes={path: mode}) as odd,
        defaults(monkeypatch, **{name: odd.url}),
        skipping(odd, hints.HINT_S),
    ):
        async with auto() as backend:
            with pytest.raises(UnreachableError, match=odd.url) as caught:
                await backend.preflight()
    assert "--backend and --base-url" in str(caught.value)
    assert "--backend llama-cpp" in str(caught.value)


@pytest.mark.parametrize("mode", ["404-route", "status:405", "302"])
async def test_another_program_on_a_default_port(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a list of models is odd on the port of Ollama, and no server on that of vLLM."""
    with Endpoint(routes={"/api/tags": mode}) as odd, defaults(monkeypatch, odd.url):
        async with auto() as backend:
            with pytest.raises(UnreachableError, match=f"a server listens at {odd.url}"):
                await backend.preflight()
    with Endpoint(routes={"/v1/models": mode}) as other, defaults(monkeypatch, vllm=other.url):
        monkeypatch.setattr("vlmbatch.backends.llama_cpp.backend.is_installed", lambda: False)
        async with auto() as backend:
            with pytest.raises(UnreachableError, match="start Ollama"):
                await backend.preflight()


async def test_another_model_server_on_the_port_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of another engine on the default port of vLLM is named, and not replaced."""
    with Endpoint(owned_by="llamacpp") as other, defaults(monkeypatch, vllm=other.url):
        async with auto() as backend:
            with pytest.raises(UnreachableError, match=r"is not vllm.*--base-url"):
                await backend.preflight()


async def test_vllm_is_used_if_ollama_is_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM on its default port is used although an Ollama answers oddly, and a note says so."""
    with (
        Endpoint(routes={"/api/tags": "500"}) as ollama,
        Endpoint(models={"m": Model()}) as vllm,
        defaults(monkeypatch, ollama.url, vllm.url),
    ):
        async with auto() as backend:
            found = await backend.preflight()
    assert found.backend == "vllm"
    assert [note for note in found.notes if note.startswith("not used: ") and ollama.url in note]


async def test_the_server_that_sees_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that an Ollama reports as blind is used at a vLLM that has it, too, else at that Ollama."""
    models = {"m": Model(vision=False)}
    with Endpoint(models=models) as blind, Endpoint(models={"m": Model()}) as vllm:
        with defaults(monkeypatch, blind.url, vllm.url):
            async with auto(model="m") as backend:
                assert (await backend.preflight()).backend == "vllm"
        with defaults(monkeypatch, blind.url):
            async with auto(model="m") as backend:
                found = await backend.preflight()
    assert (found.backend, found.sees) == ("ollama", False)


async def test_llama_cpp_with_a_list_like_ollamas(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's server, which has a list of models on Ollama's route, too, is used over OpenAI's API."""
    both = {"models": [{"name": "m"}], "data": [{"id": "m", "owned_by": "llamacpp"}]}
    with Endpoint(owned_by="llamacpp", props={}, models={"m": Model()}) as server:
        server.routes["/api/tags"] = f"body:{json.dumps(both)}"
        config = RunConfig.of(".", base_url=server.url)
        inventory = await take_inventory(config)
        async with auto(base_url=server.url) as backend:
            found = await backend.preflight()
        async with auto(base_url=server.url, backend="ollama") as wrong:
            with pytest.raises(FatalBackendError, match="--backend llama-server"):
                await wrong.preflight()
    assert (found.backend, found.url) == (inventory.models[0].backend, inventory.models[0].endpoint)
    assert found.backend == "openai"


async def test_several_vision_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several vision models are an error, not a reason to try the next candidate."""
    with Endpoint(models=MANY) as ollama, Endpoint() as vllm, defaults(monkeypatch, ollama.url, vllm.url):
        async with auto() as backend:
            with pytest.raises(ConfigError, match="a:latest, b:latest; name one with --model"):
                await backend.preflight()
    assert not vllm.requests


async def test_model_that_only_the_second_has(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that only vLLM has leads to vLLM."""
    with Endpoint(models=MANY) as vllm, defaults(monkeypatch, endpoint.url, vllm.url):
        async with auto(model="b") as backend:
            assert (await backend.preflight()).backend == "vllm"


async def test_model_that_no_server_has(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a model that no server has lists the nearest models of each."""
    with Endpoint(models=MANY) as vllm, defaults(monkeypatch, endpoint.url, vllm.url):
        async with auto(model="tiny-visoin") as backend:
            with pytest.raises(FatalBackendError, match=r"nearest: tiny-vision.*; .*nearest: a, b") as caught:
                await backend.preflight()
    assert caught.value.kind == "model_not_found"


async def test_place_from_openai_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_BASE_URL may name any server, which gets the key of OPENAI_API_KEY."""
    with Endpoint(models={"m": Model()}, owned_by="someone", api_key="some-key-123") as endpoint:
        environ = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": "some-key-123"}
        with defaults(monkeypatch):
            async with auto(environ) as backend:
                found = await backend.preflight()
    assert (found.url, found.backend) == (f"{endpoint.url}/v1", "openai")


async def test_place_that_is_named_and_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named server that is loading is not unreachable, so that the run waits for it longer."""
    with Endpoint(routes={"/v1/models": "503-loading"}) as endpoint, defaults(monkeypatch):
        async with auto({"OPENAI_BASE_URL": f"{endpoint.url}/v1"}) as backend:
            with pytest.raises(UnavailableError, match="Loading model") as caught:
                await backend.preflight()
    assert not isinstance(caught.value, UnreachableError)


async def test_place_from_ollama_host(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address in OLLAMA_HOST replaces the default address."""
    with defaults(monkeypatch):
        async with auto({"OLLAMA_HOST": f"127.0.0.1:{endpoint.port}"}) as backend:
            assert (await backend.preflight()).url == endpoint.url


async def test_url_that_speaks_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """A --base-url whose server has neither API is a fatal error with kind wrong_url, not an outage."""
    with Endpoint(speaks=[]) as web, defaults(monkeypatch):
        async with auto(base_url=web.url) as backend:
            with pytest.raises(FatalBackendError, match="--base-url") as caught:
                await backend.preflight()
    assert caught.value.kind == "wrong_url"


async def test_refused_key_is_the_only_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a refused key does not mention that the server is not Ollama."""
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
    """A .gguf file or a projector selects the embedded engine, even if a server is up."""
    with defaults(monkeypatch, endpoint.url):
        assert auto(**options).name == "llama-cpp"
    assert not endpoint.requests


async def test_addresses_are_shown_before_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of all candidates are shown in order, without a login."""
    with defaults(monkeypatch, ollama="http://me:secret@h:1", vllm="http://h:2"):
        assert auto(model="m").place == "ollama at http://h:1, else vllm at http://h:2/v1"
        assert auto().place.endswith(", else llama-cpp at in-process")
