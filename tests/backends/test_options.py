"""What shapes requests beside the question: logprobs, Ollama's own options, warming up and unloading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, question
from endpoint import Endpoint
from running import ran

from vlmbatch.backends.logprobs import MISSING, logprobs_in
from vlmbatch.backends.ollama.options import own_options, unknown_names
from vlmbatch.errors import ConfigError, FatalBackendError
from vlmbatch.events import Notice
from vlmbatch.records import Generation

Photos = Callable[..., Path]
RECORDED = [
    {
        "token": "The",
        "logprob": -1.6983718872070312,
        "bytes": [84, 104, 101],
        "top_logprobs": [
            {"token": "The", "logprob": -1.6983718872070312},
            {"token": "A", "logprob": -2.837169647216797},
        ],
    },
    {"token": " cat", "logprob": -0.07418220490217209, "top_logprobs": []},
]
"""As Ollama 0.33 and vLLM send them."""


def test_logprobs_are_read() -> None:
    """Mean and tokens, rounded, with the alternatives that were asked for; without them where none were."""
    told, warnings = logprobs_in(RECORDED, 1)
    assert told == {
        "mean": -0.886277,
        "tokens": [
            {"token": "The", "logprob": -1.698372, "top": [{"token": "The", "logprob": -1.698372}]},
            {"token": " cat", "logprob": -0.074182, "top": []},
        ],
    }
    assert warnings == ()
    plain, _ = logprobs_in(RECORDED, 0)
    assert plain is not None
    assert plain["tokens"][0] == {"token": "The", "logprob": -1.698372}


@pytest.mark.parametrize("told", [None, [], "x", {"content": []}])
def test_logprobs_that_do_not_come_are_told(told: object) -> None:
    """A warning where they were asked for, and nothing where they were not."""
    assert logprobs_in(told, 2) == (None, (MISSING,))
    assert logprobs_in(told, None) == (None, ())


def test_logprobs_are_valid_json() -> None:
    """What is no number, or infinite, is the number that stands for impossible."""
    told, _ = logprobs_in([{"token": "x", "logprob": float("-inf")}, {"token": "y", "logprob": None}], 0)
    assert told is not None
    assert [token["logprob"] for token in told["tokens"]] == [-9999.0, -9999.0]


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
async def test_logprobs_are_asked_for(photos: Photos, endpoint: Endpoint, kind: str) -> None:
    """With --logprobs 3 each question asks for them, and a record of a server that sends none warns."""
    photos(1)
    done = await ran(backend=kind, base_url=endpoint.url, model="tiny-vision", logprobs=3)
    (asked,) = endpoint.questions
    assert (asked.body["logprobs"], asked.body["top_logprobs"]) == (True, 3)
    assert MISSING in done.results[0].to_record()["warnings"]
    assert not [c for c in endpoint.canaries if "logprobs" in c.body]


def test_options_are_read_as_json_where_they_are() -> None:
    """Numbers, truth values and lists are themselves, all else is a text."""
    typed = ("num_ctx=8192", "repeat_penalty=1.1", "use_mmap=false", 'stop=["a","b"]', "numa=yes=no")
    assert own_options(typed, None) == {
        "num_ctx": 8192,
        "repeat_penalty": 1.1,
        "use_mmap": False,
        "stop": ["a", "b"],
        "numa": "yes=no",
    }


@pytest.mark.parametrize(
    ("typed", "num_ctx", "told"),
    [
        (("temperature=1",), None, "--temperature"),
        (("num_predict=1",), None, "--max-tokens"),
        (("seed=1",), None, "--seed"),
        (("num_ctx=1024",), 2048, "contradict"),
        (("num_ctx",), None, "NAME=VALUE"),
        (("=5",), None, "NAME=VALUE"),
    ],
)
def test_options_that_others_set(typed: tuple[str, ...], num_ctx: int | None, told: str) -> None:
    """What another flag is for, and what is no option, is a mistake."""
    with pytest.raises(ConfigError, match=told):
        own_options(typed, num_ctx)


def test_options_that_ollama_ignores_are_told() -> None:
    """A misspelt one has no effect there, so a person hears of it, with the nearest that has."""
    (told,) = unknown_names({"num_ctxx": 1, "top_k": 1})
    assert "did you mean num_ctx?" in told


async def test_options_go_with_every_request(photos: Photos, endpoint: Endpoint) -> None:
    """Canaries, warming up and questions all have the same, since others would load the model anew."""
    photos(2)
    done = await ran(
        backend="ollama",
        base_url=endpoint.url,
        model="tiny-vision",
        option=("num_ctx=4096", "num_gpu=5"),
    )
    assert done.error is None
    chats = [r for r in (*endpoint.requests, *endpoint.canaries) if r.path == "/api/chat"]
    assert len(chats) == 1 + 2 + 2
    assert {(r.body["options"]["num_ctx"], r.body["options"]["num_gpu"]) for r in chats} == {(4096, 5)}


@pytest.mark.parametrize("backend", ["vllm", "auto"])
async def test_options_are_for_ollama(photos: Photos, endpoint: Endpoint, backend: str) -> None:
    """Elsewhere they would be lost: a mistake that names the flag for it."""
    photos(1)
    done = await ran(backend=backend, base_url=endpoint.url, model="tiny-vision", option="top_k=1")
    assert isinstance(done.error, ConfigError)
    assert "--extra-body" in str(done.error)


async def test_warming_up_loads_as_the_run_asks() -> None:
    """Warming up loads the model as the questions will want it, and keeps it as long."""
    with KINDS["ollama"].endpoint() as endpoint:
        async with KINDS["ollama"].open(endpoint.url, option=("num_ctx=2048",)) as backend:
            await backend.preflight()
            took_s = await backend.warm_up(Generation(), 30)
    (asked,) = [r for r in endpoint.requests if r.path == "/api/chat"]
    assert took_s >= 0
    assert asked.body["messages"] == []
    assert asked.body["options"]["num_ctx"] == 2048
    assert asked.body["keep_alive"] == "30m"


async def test_an_old_server_that_takes_no_empty_chat(photos: Photos, endpoint: Endpoint) -> None:
    """Warming up fails in silence there; the run goes on."""
    photos(1)
    endpoint.routes = {}
    async with KINDS["ollama"].open(endpoint.url) as backend:
        await backend.preflight()
        endpoint.routes = {"/api/chat": "400"}
        assert await backend.warm_up(Generation(), 30) == 0.0
        endpoint.routes = {"/api/chat": "404-model"}
        with pytest.raises(FatalBackendError):
            await backend.warm_up(Generation(), 30)


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"ollama", "auto-ollama"}))
async def test_others_have_nothing_to_load(name: str) -> None:
    """Servers that load their model when they start are asked nothing."""
    kind = KINDS[name]
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            before = len(endpoint.requests)
            assert await backend.warm_up(Generation(), 30) == 0.0
            await backend.unload()
            assert len(endpoint.requests) == before


async def test_unload_lets_go_of_the_model(photos: Photos, endpoint: Endpoint) -> None:
    """With --unload the last request of a run frees the memory, and a failure of that ends nothing."""
    photos(2)
    options: dict[str, Any] = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}
    done = await ran(**options, unload=True)
    assert done.error is None
    last = endpoint.requests[-1].body
    assert (last["messages"], last["keep_alive"]) == ([], 0)
    await ran(**options)
    assert endpoint.requests[-1].body.get("keep_alive") != 0


async def test_the_picture_still_goes_out() -> None:
    """All of these together leave the question as it is."""
    with KINDS["ollama"].endpoint() as endpoint:
        async with KINDS["ollama"].open(endpoint.url, option=("top_k=3",)) as backend:
            await backend.preflight()
            done = await backend.complete(question(logprobs=0))
    assert done.text.startswith("sha256=")
    assert endpoint.questions[0].body["options"]["top_k"] == 3
    assert "top_logprobs" not in endpoint.questions[0].body


async def test_one_request_at_a_time_is_told(photos: Photos) -> None:
    """An Ollama whose requests wait for each other is named once, with what to set; one with slots is not."""
    photos(50)
    options: dict[str, Any] = {"backend": "ollama", "model": "tiny-vision", "concurrency": 4}
    with Endpoint(slots=1, delay=0.02) as serial, Endpoint(slots=4, delay=0.02) as parallel:
        told = await ran(**options, base_url=serial.url)
        quiet = await ran(**options, base_url=parallel.url)
    said = [event.message for event in told.events if isinstance(event, Notice)]
    assert sum("OLLAMA_NUM_PARALLEL" in message for message in said) == 1
    assert not [e for e in quiet.events if isinstance(e, Notice) and "OLLAMA_NUM_PARALLEL" in e.message]
