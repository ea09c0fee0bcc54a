"""The OpenAI-compatible backend: its URL, its preflight, and the body of its requests."""

from typing import Any

import pytest
from backend_contract import KINDS, babbling, picture, question, reply
from endpoint import Endpoint, Model

from vlmbatch.backends.openai.backend import api_url
from vlmbatch.errors import BackendError, ConfigError, FatalBackendError, TransientError, UnavailableError

OPENAI = KINDS["openai"]
PROPS = {"modalities": {"vision": True, "audio": False}, "total_slots": 4}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        ("https://h/api/v1", "https://h/api/v1"),
        ("https://h/openai", "https://h/openai"),
    ],
)
def test_forgotten_v1(typed: str, meant: str) -> None:
    """A URL without a path gets /v1; a path that was typed is unchanged."""
    assert api_url(typed) == meant


async def test_place_and_key_come_from_the_environment() -> None:
    """OPENAI_BASE_URL and OPENAI_API_KEY set the URL and the key, as in other clients."""
    with Endpoint(api_key="some-key-123") as endpoint:
        environ = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": "some-key-123"}
        for name in ("openai", "vllm"):
            async with KINDS[name].open(None, environ) as backend:
                assert (await backend.preflight()).url == f"{endpoint.url}/v1"


async def test_flags_beat_the_environment() -> None:
    """--base-url and --api-key override the environment variables."""
    with Endpoint(api_key="some-key-123") as endpoint:
        environ = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "another one"}
        async with OPENAI.open(endpoint.url, environ, api_key="some-key-123") as backend:
            assert (await backend.preflight()).model == "tiny-vision"


def test_hosted_endpoint_needs_a_key() -> None:
    """Without a URL, `openai` is api.openai.com, which requires a key."""
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OPENAI.open(None)
    backend = OPENAI.open(None, {"OPENAI_API_KEY": "some-key-123"})
    assert backend.place == "https://api.openai.com/v1"


def test_vllm_has_a_default_place() -> None:
    """Without a URL, `vllm` is the default port of vLLM, and needs no key."""
    assert KINDS["vllm"].open(None).place == "http://127.0.0.1:8000/v1"


def test_variable_that_is_no_url() -> None:
    """The error about a wrong OPENAI_BASE_URL names the variable and not --base-url."""
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL localhost:8000 is not a URL"):
        OPENAI.open(None, {"OPENAI_BASE_URL": "localhost:8000"})


async def test_whole_body(endpoint: Endpoint) -> None:
    """The body has exactly these fields: text before the picture, the token limit, and no stream."""
    async with OPENAI.open(endpoint.url) as backend:
        await backend.preflight()
        await backend.complete(question("What?", system="Be brief."))
    url = f"data:image/jpeg;base64,{picture().data.decode()}"
    assert endpoint.questions[0].body == {
        "model": "tiny-vision",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            },
        ],
        "max_tokens": 512,
        "temperature": 0.0,
        "stream": False,
    }


@pytest.mark.parametrize(
    ("generation", "sent"),
    [
        ({"seed": 0}, {"seed": 0}),
        ({"max_tokens": 7, "temperature": 0.5}, {"max_tokens": 7, "temperature": 0.5}),
        ({"thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ],
)
async def test_options_when_asked_for(
    endpoint: Endpoint, generation: dict[str, Any], sent: dict[str, Any]
) -> None:
    """Options are sent, even a seed of 0; thinking is turned off through vLLM's template arguments."""
    async with OPENAI.open(endpoint.url) as backend:
        await backend.complete(question(**generation))
    body = endpoint.questions[0].body
    assert {key: body[key] for key in sent} == sent


async def test_only_model_is_taken() -> None:
    """Without --model the endpoint's only model is used, and requests carry its name."""
    with Endpoint(models={"some/model": Model()}) as endpoint:
        async with OPENAI.open(endpoint.url, model=None) as backend:
            assert (await backend.preflight()).model == "some/model"
            await backend.complete(question())
    assert endpoint.questions[0].model == "some/model"


async def test_several_models(endpoint: Endpoint) -> None:
    """Without --model several models are an error that lists them."""
    async with OPENAI.open(endpoint.url, model=None) as backend:
        with pytest.raises(ConfigError, match="tiny-text, tiny-vision; name one with --model"):
            await backend.preflight()


async def test_many_models_are_not_all_listed() -> None:
    """An error about hundreds of models lists only the first ones."""
    with Endpoint(models={f"m{n:03}": Model() for n in range(300)}) as endpoint:
        async with OPENAI.open(endpoint.url, model=None) as backend:
            with pytest.raises(ConfigError, match=r"300 models.*, \.\.\.; name one") as caught:
                await backend.preflight()
    assert len(str(caught.value)) < 300


async def test_vllm_reports_its_context(endpoint: Endpoint) -> None:
    """Preflight returns the context length that vLLM lists."""
    async with OPENAI.open(endpoint.url) as backend:
        assert (await backend.preflight()).context == 8192


async def test_llama_cpp_server_reports_its_slots() -> None:
    """Preflight returns the number of slots and the model of llama.cpp's server."""
    with Endpoint(owned_by="llamacpp", props=PROPS) as endpoint:
        async with OPENAI.open(endpoint.url, model=None) as backend:
            found = await backend.preflight()
    assert (found.model, found.slots) == ("tiny-vision", 4)


async def test_llama_cpp_server_without_mmproj() -> None:
    """Preflight reports that a llama.cpp server which was started without --mmproj cannot see."""
    props = {**PROPS, "modalities": {"vision": False}}
    with Endpoint(owned_by="llamacpp", props=props, models={"m": Model()}) as endpoint:
        async with OPENAI.open(endpoint.url, model="m") as backend:
            assert (await backend.preflight()).sees is False


async def test_name_that_is_an_alias() -> None:
    """--model may be an alias of a listed model."""
    told = reply({"data": [{"id": "long/name.gguf", "aliases": ["short"]}]})
    async with babbling(told) as url, OPENAI.open(url, model="short") as backend:
        assert (await backend.preflight()).model == "short"


async def test_wrong_path() -> None:
    """A path that the server does not have ends the run with a hint at /v1."""
    with Endpoint() as endpoint:
        async with OPENAI.open(f"{endpoint.url}/openai") as backend:
            with pytest.raises(FatalBackendError, match=r"ends in /v1"):
                await backend.preflight()


async def test_probe_queries_health(endpoint: Endpoint) -> None:
    """A probe requests /health, outside /v1, since only that detects a dead engine of vLLM."""
    async with OPENAI.open(endpoint.url) as backend:
        await backend.probe()
    assert [(r.method, r.path) for r in endpoint.requests] == [("GET", "/health")]


@pytest.mark.parametrize("mode", ["503-empty", "503-loading"])
async def test_probe_of_a_server_that_is_not_well(mode: str) -> None:
    """vLLM's empty 503 of a dead engine, and a server that loads, count as down."""
    with Endpoint(routes={"/health": mode}) as endpoint:
        async with OPENAI.open(endpoint.url) as backend:
            with pytest.raises(UnavailableError) as caught:
                await backend.probe()
    assert caught.value.kind == "down"


@pytest.mark.parametrize("mode", ["404-route", "405", "401", "302", "html200"])
async def test_probe_of_a_server_without_health(mode: str) -> None:
    """A server that has no /health, or protects it, is up."""
    with Endpoint(routes={"/health": mode}) as endpoint:
        async with OPENAI.open(endpoint.url) as backend:
            await backend.probe()
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("mode", ["404-model", "old_vllm_error_shape"])
async def test_both_error_shapes(mode: str) -> None:
    """vLLM's errors are read in today's shape and in the shape before 0.10."""
    with Endpoint(script=[mode]) as endpoint:
        async with OPENAI.open(endpoint.url) as backend:
            with pytest.raises(BackendError) as caught:
                await backend.complete(question())
    assert '"' not in str(caught.value), "the JSON around the words is still there"
    assert len(str(caught.value)) > 40


async def test_error_inside_a_200() -> None:
    """An error object under a status of 200 is an error."""
    with Endpoint(script=["error_in_200"]) as endpoint:
        async with OPENAI.open(endpoint.url) as backend:
            with pytest.raises(BackendError):
                await backend.complete(question())


async def test_first_choice_is_the_answer() -> None:
    """The first of several choices is the answer."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in ("one", "two")]
    async with babbling(reply({"choices": choices})) as url, OPENAI.open(url) as backend:
        assert (await backend.complete(question())).text == "one"


async def test_answer_in_parts() -> None:
    """If an answer has parts, as from Mistral's thinking models, its text parts are the answer."""
    parts = [
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "A "},
        {"type": "text", "text": "cat."},
    ]
    choice = {"message": {"content": parts}, "finish_reason": "stop"}
    async with babbling(reply({"choices": [choice]})) as url, OPENAI.open(url) as backend:
        assert (await backend.complete(question())).text == "A cat."


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_thoughts_under_either_name(field: str) -> None:
    """The reasoning of vLLM's model is counted under both names of the field."""
    choice = {"message": {"content": "A cat.", field: "Hm, fur."}, "finish_reason": "stop"}
    async with babbling(reply({"choices": [choice]})) as url, OPENAI.open(url) as backend:
        assert (await backend.complete(question())).thinking == len("Hm, fur.")


async def test_answer_without_a_choice() -> None:
    """A reply without choices is a transient error."""
    async with babbling(reply({"choices": []})) as url, OPENAI.open(url) as backend:
        with pytest.raises(TransientError, match="choices") as caught:
            await backend.complete(question())
    assert caught.value.kind == "bad_response"
