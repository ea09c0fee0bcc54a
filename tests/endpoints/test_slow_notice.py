"""The notice about an Ollama that another program keeps busy with other options."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backend_contract import closed_port
from endpoint import Endpoint
from loop_clock import skipping
from replying import OLLAMA, Raw, as_json, replying
from running import Ran, ran

from vlmbatch.backends.ollama.backend import OllamaBackend
from vlmbatch.backends.ollama.loaded import LoadedModel
from vlmbatch.backends.ollama.rivals import ADVICE, why_slow
from vlmbatch.endpoints.slow_notice import SlowNotice
from vlmbatch.events import Event, Notice

Photos = Callable[..., Path]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def loaded(name: str = "llava", context: int | None = 4096, minutes: float = 5.0) -> LoadedModel:
    return LoadedModel(name=name, context=context, until=NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("models", "context", "told"),
    [
        (
            [loaded()],
            8192,
            "Ollama has loaded llava with a context of 4,096 tokens for another 5 min, while this run needs "
            f"llava with a context of 8,192 tokens; {ADVICE}",
        ),
        (
            [loaded()],
            4096,
            f"Ollama has loaded llava with a context of 4,096 tokens for another 5 min; {ADVICE}",
        ),
        (
            [loaded()],
            None,
            f"Ollama has loaded llava with a context of 4,096 tokens for another 5 min; {ADVICE}",
        ),
        (
            [loaded("qwen", None, 10**8)],
            None,
            f"Ollama has loaded qwen without a time limit, while this run needs llava; {ADVICE}",
        ),
        (
            [loaded("qwen", None, -3), loaded()],
            None,
            f"Ollama has loaded qwen and llava with a context of 4,096 tokens for another 5 min; {ADVICE}",
        ),
        ([], 4096, None),
    ],
)
def test_the_message_names_what_is_loaded_and_what_is_needed(
    models: list[LoadedModel], context: int | None, told: str | None
) -> None:
    """The message has each loaded model, its context and how long it stays, and what this run needs."""
    assert why_slow(models, "llava", context, NOW) == told


@pytest.mark.parametrize(
    "name", ["llava:latest", "LLaVA", "library/llava", "registry.ollama.ai/library/llava"]
)
def test_a_loaded_model_is_known_by_each_of_its_names(name: str) -> None:
    """A model that is loaded is the model of the run under every name that Ollama resolves."""
    assert "while this run needs" not in str(why_slow([loaded()], name, 4096, NOW))


def backend(url: str) -> OllamaBackend:
    return OllamaBackend(url, model="tiny-vision", api_key=None, timeout_s=5, keep_alive=None)


async def test_a_slow_load_is_reported_while_it_goes_on(endpoint: Endpoint) -> None:
    """A load that takes long is reported before it ends, once, with what Ollama has loaded."""
    told = list[str]()
    first = asyncio.Event()

    def tell(message: str) -> None:
        told.append(message)
        first.set()

    async def load() -> float:
        await first.wait()
        return 3.0

    async with backend(endpoint.url) as ollama:
        assert await SlowNotice(ollama, tell, slow_s=0).loading(load()) == 3.0
    (message,) = told
    assert message.startswith(f"{endpoint.url} is still loading the model after 0 s: Ollama has loaded tiny-")


@pytest.mark.parametrize("wire", ["vllm", "ollama"])
async def test_a_slow_canary_is_reported_while_it_goes_on(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    """A run whose first question waits for its answer says so once, and goes on when it is answered."""
    monkeypatch.setattr(SlowNotice.__init__, "__kwdefaults__", {"slow_s": 0.0})
    photos(1)
    endpoint.canary = "held"

    def release(event: Event) -> None:
        if isinstance(event, Notice):
            endpoint.released = True

    done = await ran(backend=wire, base_url=endpoint.url, model="tiny-vision", on_event=release)
    assert [result.ok for result in done.results] == [True]
    assert len([m for m in notices(done) if "load" in m and m.startswith(endpoint.url)]) == 1


async def test_a_slow_warm_up_of_a_run_is_reported(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits for its model says so meanwhile, with the model that another program has loaded."""
    monkeypatch.setattr(SlowNotice.__init__, "__kwdefaults__", {"slow_s": 0.0})
    photos(1)
    told = threading.Event()

    def reply(path: str, text: str) -> Raw | None:
        if path == "/api/ps":
            return as_json({"models": [{"name": "other:latest", "context_length": 4096}]})
        if path == OLLAMA and not server.asked[-1].body["messages"]:
            told.wait(60)
        return None

    def hear(event: Event) -> None:
        if isinstance(event, Notice) and "is still loading the model" in event.message:
            told.set()

    with replying(reply) as server:
        done = await ran(on_event=hear, backend="ollama", base_url=server.url, model="tiny")
    assert [result.ok for result in done.results] == [True]
    (message,) = [message for message in notices(done) if "is still loading the model" in message]
    assert "Ollama has loaded other with a context of 4,096 tokens, while this run needs tiny" in message


async def test_an_ollama_that_is_gone_gives_no_reason() -> None:
    """If Ollama is down when it is asked what it has loaded, there is no reason, and no error."""
    with closed_port() as url:
        async with backend(url) as ollama:
            assert await ollama.why_slow() is None


async def test_a_quick_load_is_not_reported(endpoint: Endpoint) -> None:
    """A load that ends in time causes no message and no request."""
    told = list[str]()
    async with backend(endpoint.url) as ollama:
        assert await SlowNotice(ollama, told.append).loading(asyncio.sleep(0, 1.0)) == 1.0
    assert (told, endpoint.requests) == ([], [])


def asking(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision", "timeout": 60, "concurrency": 1
    }  # fmt: skip


def notices(done: Ran) -> list[str]:
    return [event.message for event in done.events if isinstance(event, Notice)]


@pytest.mark.parametrize("context", [{"num_ctx": 8192}, {"option": ("num_ctx=8192",)}], ids=str)
async def test_the_first_timeout_says_what_ollama_has_loaded(
    photos: Photos, endpoint: Endpoint, context: dict[str, object]
) -> None:
    """The first timeout of a run is reported once, with the loaded model; all images are answered."""
    photos(4)
    endpoint.script = ["hang", "held", "hang"]

    def act(event: Event) -> None:
        if isinstance(event, Notice):
            endpoint.released = True  # so the second timeout comes after the notice

    with skipping(endpoint, 60):
        done = await ran(**asking(endpoint), **context, on_event=act)
    assert len(endpoint.questions) == 4 + 2
    assert all(result.ok for result in done.results)
    (told,) = [message for message in notices(done) if "did not answer in time" in message]
    assert "tiny-vision with a context of 4,096 tokens" in told
    assert "while this run needs tiny-vision with a context of 8,192 tokens" in told
    assert "same model, --num-ctx and --option" in told


@pytest.mark.parametrize("mode", ["404-route", "500", "html200", "hang", "broken_json"])
async def test_a_timeout_without_a_hint_delays_nothing(photos: Photos, endpoint: Endpoint, mode: str) -> None:
    """If /api/ps does not answer, the run goes on without the notice."""
    photos(2)
    endpoint.script = ["hang"]
    endpoint.routes["/api/ps"] = mode
    with skipping(endpoint, 60):
        done = await ran(**asking(endpoint))
    assert all(result.ok for result in done.results)
    assert not any("did not answer in time" in message for message in notices(done))


async def test_other_servers_are_not_asked(photos: Photos, endpoint: Endpoint) -> None:
    """A timeout at another server than Ollama causes no helper request and no notice."""
    photos(1)
    endpoint.script = ["hang"]
    with skipping(endpoint, 60):
        done = await ran(**{**asking(endpoint), "backend": "vllm"})
    assert all(result.ok for result in done.results)
    assert not any(request.path == "/api/ps" for request in endpoint.requests)
