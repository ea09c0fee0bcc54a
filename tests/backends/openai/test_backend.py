"""The OpenAI-compatible backend: where it asks, what it learns at preflight, and the body it sends."""

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
    """A bare host gets the /v1 that people forget; a path that was typed is left alone."""
    assert api_url(typed) == meant


async def test_place_and_key_come_from_the_environment() -> None:
    """OPENAI_BASE_URL and OPENAI_API_KEY work as they do for other clients."""
    with Endpoint(api_key="some-key-123") as endpoint:
        environ = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_API_KEY": "some-key-123"}
        for name in ("openai", "vllm"):
            async with KINDS[name].open(None, environ) as backend:
                assert (await backend.preflight()).url == f"{endpoint.url}/v1"


async def test_flags_beat_the_environment() -> None:
    """--base-url and --api-key count before the variables."""
    with Endpoint(api_key="some-key-123") as endpoint:
        environ = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "another one"}
        async with OPENAI.open(endpoint.url, environ, api_key="some-key-123") as backend:
            assert (await backend.preflight()).model == "tiny-vision"


def test_hosted_endpoint_needs_a_key() -> None:
    """Without a URL, openai is api.openai.com, which is not asked without a key."""
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OPENAI.open(None)
    backend = OPENAI.open(None, {"OPENAI_API_KEY": "some-key-123"})
    assert backend.place == "https://api.openai.com/v1"


def test_vllm_has_a_default_place() -> None:
    """Without a URL, vllm is the port that vLLM listens on by default, and needs no key."""
    assert KINDS["vllm"].open(None).place == "http://127.0.0.1:8000/v1"


def test_variable_that_is_no_url() -> None:
    """The error about a wrong OPENAI_BASE_URL names it, and not a flag that was never typed."""
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL localhost:8000 is not a URL"):
        OPENAI.open(None, {"OPENAI_BASE_URL": "localhost:8000"})


async def test_whole_body(endpoint: Endpoint) -> None:
    """This and nothing else is sent: text before the picture, the token limit always, no stream."""
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
    """What an option sets is sent, a seed of 0 too; thinking is turned off as vLLM's templates know it."""
    async with OPENAI.open(endpoint.url) as backend:
        await backend.complete(question(**generation))
    body = endpoint.questions[0].body
    assert {key: body[key] for key in sent} == sent


async def test_only_model_is_taken() -> None:
    """Without --model an endpoint's only model is taken, and asked by its name."""
    with Endpoint(models={"some/model": Model()}) as endpoint:
        async with OPENAI.open(endpoint.url, model=None) as backend:
            assert (await backend.preflight()).model == "some/model"
            await backend.complete(question())
    assert endpoint.questions[0].model == "some/model"


async def test_several_models(endpoint: Endpoint) -> None:
    """Without --model several models are a question to the user."""
    async with OPENAI.open(endpoint.url, model=None) as backend:
        with pytest.raises(ConfigError, match="tiny-text, tiny-vision; name one with --model"):
            await backend.preflight()


async def test_many_models_are_not_all_listed() -> None:
    """A hosted endpoint's hundreds of models do not flood the screen."""
    with Endpoint(models={f"m{n:03}": Model() for n in range(300)}) as endpoint:
        async with OPENAI.open(endpoint.url, model=None) as backend:
            with pytest.raises(ConfigError, match=r"300 models.*, \.\.\.; name one") as caught:
                await backend.preflight()
    assert len(str(caught.value)) < 300


async def test_vllm_tells_its_context(endpoint: Endpoint) -> None:
    """The context length that vLLM lists is known after preflight."""
    async with OPENAI.open(endpoint.url) as backend:
        assert (await backend.preflight()).context == 8192


async def test_llama_cpp_server_tells_its_slots() -> None:
    """llama.cpp's server tells how many requests it works on at once, and which model it has."""
    with Endpoint(owned_by="llamacpp", props=PROPS) as endpoint:
        async with OPENAI.open(endpoint.url, model=None) as backend:
            found = await backend.preflight()
    assert (found.model, found.slots) == ("tiny-vision", 4)


async def test_llama_cpp_server_without_mmproj() -> None:
    """A llama.cpp server that was started without its vision part is found out before any question."""
    props = {**PROPS, "modalities": {"vision": False}}
    with Endpoint(owned_by="llamacpp", props=props, models={"m": Model()}) as endpoint:
        async with OPENAI.open(endpoint.url, model="m") as backend:
            with pytest.raises(FatalBackendError, match="--mmproj") as caught:
                await backend.preflight()
    assert caught.value.kind == "no_vision"


async def test_name_that_is_an_alias() -> None:
    """A model may be asked for by another name that the server has for it."""
    told = reply({"data": [{"id": "long/name.gguf", "aliases": ["short"]}]})
    async with babbling(told) as url, OPENAI.open(url, model="short") as backend:
        assert (await backend.preflight()).model == "short"


async def test_wrong_path() -> None:
    """A path that the server does not have ends the run, with the question that most often helps."""
    with Endpoint() as endpoint:
        async with OPENAI.open(f"{endpoint.url}/openai") as backend:
            with pytest.raises(FatalBackendError, match=r"ends in /v1"):
                await backend.preflight()


async def test_probe_asks_for_health(endpoint: Endpoint) -> None:
    """A probe asks the one route that knows whether vLLM's engine lives, which is beside /v1."""
    async with OPENAI.open(endpoint.url) as backend:
        await backend.probe()
    assert [(r.method, r.path) for r in endpoint.requests] == [("GET", "/health")]


@pytest.mark.parametrize("mode", ["503-empty", "503-loading"])
async def test_probe_of_a_server_that_is_not_well(mode: str) -> None:
    """vLLM's health with a dead engine, which has no text, and a server that loads are away."""
    with Endpoint(routes={"/health": mode}) as endpoint:
        async with OPENAI.open(endpoint.url) as backend:
            with pytest.raises(UnavailableError) as caught:
                await backend.probe()
    assert caught.value.kind == "down"


@pytest.mark.parametrize("mode", ["404-route", "405", "401", "302", "html200"])
async def test_probe_of_a_server_without_health(mode: str) -> None:
    """Who has no such route, or guards it, answers: it is there."""
    with Endpoint(routes={"/health": mode}) as endpoint:
        async with OPENAI.open(endpoint.url) as backend:
            await backend.probe()
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("mode", ["404-model", "old_vllm_error_shape"])
async def test_both_error_shapes(mode: str) -> None:
    """vLLM's errors are understood in the shape of today and of before 0.10."""
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
    """Of several choices the first one counts."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in ("one", "two")]
    async with babbling(reply({"choices": choices})) as url, OPENAI.open(url) as backend:
        assert (await backend.complete(question())).text == "one"


async def test_answer_in_parts() -> None:
    """Of an answer in parts, as Mistral's thinking models give it, the text parts are the answer."""
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
    """What vLLM's model thought is counted under both names that the field has had."""
    choice = {"message": {"content": "A cat.", field: "Hm, fur."}, "finish_reason": "stop"}
    async with babbling(reply({"choices": [choice]})) as url, OPENAI.open(url) as backend:
        assert (await backend.complete(question())).thinking == len("Hm, fur.")


async def test_answer_without_a_choice() -> None:
    """A reply without choices is broken, and worth another try."""
    async with babbling(reply({"choices": []})) as url, OPENAI.open(url) as backend:
        with pytest.raises(TransientError, match="choices") as caught:
            await backend.complete(question())
    assert caught.value.kind == "bad_response"
