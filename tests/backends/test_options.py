"""Further options of requests: logprobs, Ollama's own options, warm-up and unloading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, question
from endpoint import Endpoint
from running import ran

from vlmbatch.backends.logprobs import MISSING, SPARE_TOKENS, logprobs_in
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
"""Logprobs in the format of Ollama 0.33 and vLLM."""


def test_logprobs_are_read() -> None:
    """Mean and tokens are rounded, and have the requested number of alternatives."""
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
def test_missing_logprobs_are_a_warning(told: object) -> None:
    """Missing logprobs are a warning if they were requested."""
    assert logprobs_in(told, 2) == (None, (MISSING,))
    assert logprobs_in(told, None) == (None, ())


def test_logprobs_are_valid_json() -> None:
    """A logprob that is infinite or not a number becomes -9999."""
    told, _ = logprobs_in([{"token": "x", "logprob": float("-inf")}, {"token": "y", "logprob": None}], 0)
    assert told is not None
    assert [token["logprob"] for token in told["tokens"]] == [-9999.0, -9999.0]


def test_more_logprobs_than_tokens_are_not_kept() -> None:
    """Only the first of many logprobs are kept, with a warning that has both numbers."""
    told, warnings = logprobs_in([{"token": "x", "logprob": -1}] * 5000, 0, 100)
    assert told is not None
    assert len(told["tokens"]) == 2 * 100 + SPARE_TOKENS
    assert warnings == ("the endpoint sent logprobs of 5,000 tokens; the record has the first 1,224",)
    told, warnings = logprobs_in([{"token": "x", "logprob": -1}] * 5000, 0, None)
    assert told is not None
    assert (len(told["tokens"]), warnings) == (5000, ())


@pytest.mark.parametrize("kind", ["ollama", "vllm"])
async def test_logprobs_are_requested(photos: Photos, endpoint: Endpoint, kind: str) -> None:
    """--logprobs 3 requests them for each image, and a record warns if the server sends none."""
    photos(1)
    done = await ran(backend=kind, base_url=endpoint.url, model="tiny-vision", logprobs=3)
    (asked,) = endpoint.questions
    assert (asked.body["logprobs"], asked.body["top_logprobs"]) == (True, 3)
    assert MISSING in done.results[0].to_record()["warnings"]
    assert not [c for c in endpoint.canaries if "logprobs" in c.body]


def test_options_are_read_as_json_where_they_are() -> None:
    """The value of an option is parsed as JSON if possible, else it is a string."""
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
    """An option that another flag sets, or that is not NAME=VALUE, is an error."""
    with pytest.raises(ConfigError, match=told):
        own_options(typed, num_ctx)


def test_options_that_ollama_ignores_are_a_note() -> None:
    """A misspelt option is a note with the nearest known name, since Ollama ignores it."""
    (told,) = unknown_names({"num_ctxx": 1, "top_k": 1})
    assert "did you mean num_ctx?" in told


async def test_options_go_with_every_request(photos: Photos, endpoint: Endpoint) -> None:
    """Canaries, the warm-up and images have the same options, since different ones would reload the model."""
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
    """--option with another backend is an error that names the flag to use."""
    photos(1)
    done = await ran(backend=backend, base_url=endpoint.url, model="tiny-vision", option="top_k=1")
    assert isinstance(done.error, ConfigError)
    assert "--extra-body" in str(done.error)


async def test_warm_up_has_the_options_of_the_run() -> None:
    """The warm-up loads the model with the options and the keep_alive of the later requests."""
    with KINDS["ollama"].endpoint() as endpoint:
        async with KINDS["ollama"].open(endpoint.url, option=("num_ctx=2048",)) as backend:
            await backend.preflight()
            took_s = await backend.warm_up(Generation(), 30)
    (asked,) = [r for r in endpoint.requests if r.path == "/api/chat"]
    assert took_s >= 0
    assert asked.body["messages"] == []
    assert asked.body["options"]["num_ctx"] == 2048
    assert asked.body["keep_alive"] == "30m"


async def test_an_old_server_that_refuses_an_empty_chat(photos: Photos, endpoint: Endpoint) -> None:
    """The warm-up of a server that refuses an empty chat takes 0 s; an unknown model is still an error."""
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
async def test_other_servers_have_nothing_to_load(name: str) -> None:
    """Servers that load their model when they start get no request for warm-up and unloading."""
    kind = KINDS[name]
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            before = len(endpoint.requests)
            assert await backend.warm_up(Generation(), 30) == 0.0
            await backend.unload()
            assert len(endpoint.requests) == before


async def test_unload_frees_the_model(photos: Photos, endpoint: Endpoint) -> None:
    """With --unload, and only then, the last request of a run unloads the model."""
    photos(2)
    options: dict[str, Any] = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}
    done = await ran(**options, unload=True)
    assert done.error is None
    last = endpoint.requests[-1].body
    assert (last["messages"], last["keep_alive"]) == ([], 0)
    await ran(**options)
    assert endpoint.requests[-1].body.get("keep_alive") != 0


async def test_the_picture_still_goes_out() -> None:
    """With own options and logprobs together, the picture is still sent."""
    with KINDS["ollama"].endpoint() as endpoint:
        async with KINDS["ollama"].open(endpoint.url, option=("top_k=3",)) as backend:
            await backend.preflight()
            done = await backend.complete(question(logprobs=0))
    assert done.text.startswith("sha256=")
    assert endpoint.questions[0].body["options"]["top_k"] == 3
    assert "top_logprobs" not in endpoint.questions[0].body


async def test_one_request_at_a_time_is_a_notice(photos: Photos) -> None:
    """An Ollama that processes one request at a time gives one notice with the setting to change."""
    photos(50)
    options: dict[str, Any] = {"backend": "ollama", "model": "tiny-vision", "concurrency": 4}
    with Endpoint(slots=1, delay=0.02) as serial, Endpoint(slots=4, delay=0.02) as parallel:
        told = await ran(**options, base_url=serial.url)
        quiet = await ran(**options, base_url=parallel.url)
    said = [event.message for event in told.events if isinstance(event, Notice)]
    assert sum("OLLAMA_NUM_PARALLEL" in message for message in said) == 1
    assert not [e for e in quiet.events if isinstance(e, Notice) and "OLLAMA_NUM_PARALLEL" in e.message]
