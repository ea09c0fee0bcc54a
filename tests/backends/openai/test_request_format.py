"""Refused parameters: what vlmbatch sends by itself is left out or changed, whatever the words."""

from collections.abc import Callable
from typing import Any

import pytest
from backend_contract import LITELLM, Kind, question
from endpoint import Endpoint, Received
from endpoint.messages import Reply
from endpoint.wires import as_json, error

from vlmbatch.backends.openai.backend import OpenAICompatibleBackend
from vlmbatch.backends.openai.servers import SERVER_TYPES
from vlmbatch.errors import BackendError
from vlmbatch.protocols import Backend

VLLM = Kind(backend="vllm", wire="openai", name="vllm")
OLLAMA = Kind(backend="ollama", wire="ollama", name="ollama")
OPENROUTER = Kind(backend="openrouter", wire="openai", name="openrouter")


def opened(endpoint: Endpoint, **options: object) -> Backend:
    return VLLM.open(endpoint.url, **options)


def words(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": None}}


def mistral(kind: str, name: str) -> dict[str, Any]:
    item = {"type": kind, "loc": ["body", name], "msg": "Extra inputs are not permitted"}
    return {"object": "error", "message": {"detail": [item]}, "type": "invalid_request_error"}


GEMINI = [
    {
        "error": {
            "code": 400,
            "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
        }
    }
]
PYDANTIC = "1 validation error for Request\nseed\n  Extra inputs are not permitted [type=extra_forbidden]"
WORDINGS = [
    ("temperature", 400, words("`temperature` is deprecated for this model.")),
    ("temperature", 422, {"error": "Input validation error: `temperature` must be strictly positive"}),
    ("temperature", 400, words("Only temperature=1 is allowed here")),
    ("temperature", 400, {"error": {"message": "Invalid value", "param": "temperature"}}),
    ("temperature", 500, words("litellm: model does not support parameters: ['temperature']")),
    ("temperature", 200, {"error": {"message": "temperature: value out of range", "code": 400}}),
    ("temperature", 200, {"error": {"message": "Unsupported parameter: temperature"}}),
    ("temperature", 501, words("temperature is not implemented")),
    ("temperature", 403, words("parameter temperature is not permitted for this key")),
    ("temperature", 500, words("temperature has to be positive")),
    ("temperature", 409, words("temperature is not available")),
    ("seed", 400, GEMINI),
    ("seed", 422, mistral("extra_forbidden", "seed")),
    ("seed", 400, words("Unrecognized request argument supplied: seed")),
    ("seed", 422, {"detail": [{"loc": ["body", "seed"], "msg": "extra fields not permitted"}]}),
    ("seed", 400, words(PYDANTIC)),
    ("stream", 422, {"detail": [{"loc": ["body", "stream"], "msg": "Extra inputs are not permitted"}]}),
    ("chat_template_kwargs", 400, words("enable_thinking is not supported by this model")),
    ("chat_template_kwargs", 400, words("Unsupported argument chatTemplateKwargs")),
]


def refusing(
    holds: Callable[[dict[str, Any]], object], status: int, body: object
) -> Callable[[Received], Reply | None]:
    """A server that refuses with this reply each request for which `holds` is true."""
    return lambda request: as_json(status, body) if holds(request.body) else None


@pytest.mark.parametrize(("name", "status", "body"), WORDINGS)
async def test_a_parameter_refused_in_any_words(
    endpoint: Endpoint, name: str, status: int, body: object
) -> None:
    """The same request is sent again without the parameter that a reply names, and later ones, too."""
    endpoint.refusal = refusing(lambda sent: name in sent, status, body)
    async with opened(endpoint) as backend:
        await backend.complete(question(seed=3, thinking=False))
        await backend.complete(question(seed=3, thinking=False))
    assert [name in asked.body for asked in endpoint.questions] == [True, False, False]
    others = {"temperature", "seed", "chat_template_kwargs", "max_tokens"} - {name}
    assert others < endpoint.questions[-1].body.keys()


@pytest.mark.parametrize(
    "told",
    [
        "This model only support stream mode, please enable the stream parameter to access the model.",
        "Non-streaming requests are not supported",
        "this model does not support non-streaming calls",
        "parameter.enable_thinking must be set to false for non-streaming calls",
        "Only streaming is supported",
        "This model only supports streaming: stream must be set to true",
        "stream: must be true",
        "Streaming is required for this model",
    ],
)
@pytest.mark.parametrize("status", [400, 405, 500])
async def test_a_server_that_answers_only_as_a_stream(endpoint: Endpoint, told: str, status: int) -> None:
    """The request is sent again with `stream: true`, which is read anyway, and so are later ones."""
    endpoint.refusal = refusing(lambda sent: not sent.get("stream"), status, words(told))
    async with opened(endpoint) as backend:
        for _ in range(2):
            assert (await backend.complete(question())).text
    assert [asked.body["stream"] for asked in endpoint.questions] == [False, True, True]


async def test_a_parameter_refused_on_a_later_request(endpoint: Endpoint) -> None:
    """If a later request is the first one with a parameter, its refusal is learnt then."""
    endpoint.refusal = refusing(lambda sent: "seed" in sent, 400, GEMINI)
    async with opened(endpoint) as backend:
        await backend.complete(question())
        done = await backend.complete(question(seed=1))
    assert done.warnings == ("sent without --seed, which this model does not accept",)
    assert len(endpoint.questions) == 3


async def test_a_parameter_left_out_without_effect_is_sent_again(endpoint: Endpoint) -> None:
    """If the request is also refused without a parameter, the parameter is sent again, and never left out."""
    odd = as_json(400, words("this picture gives the temperature of nothing"))
    endpoint.refusal = lambda request: odd if request.body.get("seed") == 9 else None
    async with opened(endpoint) as backend:
        for _ in range(2):
            with pytest.raises(BackendError, match="the temperature of nothing"):
                await backend.complete(question(seed=9))
        done = await backend.complete(question())
    assert done.warnings == ()
    assert ["temperature" in asked.body for asked in endpoint.questions] == [True, False, True, True]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, words("engine crashed while it sampled with temperature 0")),
        (400, words("This model's maximum context length is 512 tokens; max_tokens=512 is part of it")),
        (429, words("temperature of requests: too many")),
        (403, words("blocked: temperature of the engine")),
        (200, words("failed while it sampled with temperature 0")),
        (400, {"error": {"message": "flagged for temperature", "code": "content_filter"}}),
    ],
)
async def test_other_errors_name_parameters_too(endpoint: Endpoint, status: int, body: object) -> None:
    """A crash, a full context, a busy server and a filter refuse no parameter: nothing is sent again."""
    endpoint.refusal = refusing(lambda sent: True, status, body)
    async with opened(endpoint) as backend:
        with pytest.raises(BackendError):
            await backend.complete(question())
    assert len(endpoint.questions) == 1


LIMITS = [
    ("Invalid 'max_tokens': integer below minimum value. Expected a value >= 32, but got 16.", 16, 32),
    ("max_tokens must be at least 32", 16, 32),
    ("max_tokens must be greater than 31", 16, 32),
    ("`max_tokens` must be between 32 and 256", 16, 32),
    ("`max_new_tokens` must be between 32 and 256", 512, 256),
    ("max_tokens is too large: 512. This model supports at most 256 completion tokens.", 512, 256),
]


@pytest.mark.parametrize(("text", "sent", "accepted"), LIMITS)
async def test_a_limit_of_tokens_that_is_refused(
    endpoint: Endpoint, text: str, sent: int, accepted: int
) -> None:
    """A token limit that vlmbatch chose is raised or lowered to the number that the server states."""
    endpoint.refusal = refusing(lambda body: body["max_tokens"] != accepted, 400, words(text))
    async with opened(endpoint) as backend:
        await backend.complete(question(max_tokens=sent))
        await backend.complete(question(max_tokens=sent))
    assert [asked.body["max_tokens"] for asked in endpoint.questions] == [sent, accepted, accepted]


async def test_a_minimum_without_a_number(endpoint: Endpoint) -> None:
    """A limit that is too small is also raised if the reply only has an error code for that."""
    body = {"error": {"message": "Invalid value", "param": "max_tokens", "code": "integer_below_min_value"}}
    endpoint.refusal = refusing(lambda sent: sent.get("max_tokens", 64) < 32, 400, body)
    async with opened(endpoint) as backend:
        await backend.complete(question(max_tokens=16))
    assert endpoint.questions[-1].body["max_tokens"] == 64


@pytest.mark.parametrize("known", ["max_tokens", "max_completion_tokens", None])
async def test_the_name_of_the_limit(endpoint: Endpoint, known: str | None) -> None:
    """A refused limit is sent under its other name, and left out with a warning if both are refused."""

    def refusal(request: Received) -> Reply | None:
        unknown = {"max_tokens", "max_completion_tokens"} & request.body.keys() - {known}
        return error("openai", 400, f"Unknown parameter: {unknown.pop()}") if unknown else None

    endpoint.refusal = refusal
    for name in ("vllm", "openai"):
        async with OpenAICompatibleBackend(
            f"{endpoint.url}/v1",
            server_type=SERVER_TYPES[name],
            model="tiny-vision",
            api_key=None,
            timeout_s=30,
        ) as backend:
            done = await backend.complete(question())
        assert ({"max_tokens", "max_completion_tokens"} & endpoint.questions[-1].body.keys()) == (
            {known} - {None}
        )
        told = ("sent without --max-tokens, which this model does not accept",)
        assert done.warnings == (() if known else told)


async def test_a_required_detail(endpoint: Endpoint) -> None:
    """A server that requires the detail of a picture gets `auto`."""
    place = ["body", "messages", 0, "content", 1, "image_url", "detail"]
    body = {"detail": [{"type": "missing", "loc": place, "msg": "Field required"}]}

    def lacks_detail(sent: dict[str, Any]) -> bool:
        return "detail" not in sent["messages"][0]["content"][1]["image_url"]

    endpoint.refusal = refusing(lacks_detail, 422, body)
    async with opened(endpoint) as backend:
        await backend.complete(question())
    assert endpoint.questions[-1].body["messages"][0]["content"][1]["image_url"]["detail"] == "auto"


async def test_the_report_of_costs_is_left_out(endpoint: Endpoint) -> None:
    """OpenRouter's switch for costs is left out if a gateway in its place refuses it."""
    endpoint.refusal = refusing(lambda sent: "usage" in sent, 400, words("Unknown field: usage"))
    async with OPENROUTER.open(endpoint.url) as backend:
        await backend.complete(question())
    assert "usage" not in endpoint.questions[-1].body


GIVEN: list[tuple[str, dict[str, object], str]] = [
    ("temperature", {"temperature": 0.5}, "temperature must be 1"),
    ("seed", {"seed": 4}, "Unknown name: seed"),
    ("max_tokens", {"max_tokens": 8}, "max_tokens must be at least 32"),
    ("top_k", {"extra_body": '{"top_k": 5}'}, "Extra inputs are not permitted: top_k"),
]


@pytest.mark.parametrize(("name", "options", "text"), GIVEN)
async def test_an_option_of_the_user_is_never_left_out(
    endpoint: Endpoint, name: str, options: dict[str, object], text: str
) -> None:
    """A refused parameter that the user has set is an error, and no request is sent without it."""
    endpoint.refusal = refusing(lambda sent: name in sent, 400, words(text))
    asked = {key: value for key, value in options.items() if key != "extra_body"}
    async with opened(endpoint, **options) as backend:
        with pytest.raises(BackendError, match=text):
            await backend.complete(question(**asked, given=frozenset(asked)))
    assert len(endpoint.questions) == 1


async def test_a_parameter_left_out_by_hand(endpoint: Endpoint) -> None:
    """null in --extra-body leaves a parameter out from the first request on, also the limit of tokens."""
    nulls = '{"temperature": null, "max_completion_tokens": null, "stream": null, "top_k": 3}'
    async with opened(endpoint, extra_body=nulls) as backend:
        done = await backend.complete(question())
    assert endpoint.questions[0].body.keys() == {"model", "messages", "top_k"}
    assert done.warnings == ()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("think", '"tiny-vision" does not support thinking'),
        ("truncate", "unknown field: truncate"),
        ("keep_alive", "keep_alive is not permitted"),
        ("temperature", "option temperature is deprecated"),
    ],
)
async def test_ollama_adapts_too(endpoint: Endpoint, name: str, told: str) -> None:
    """A server with Ollama's API gets no parameter that it has refused, and still all others."""

    def refusal(request: Received) -> Reply | None:
        sent = request.body | request.body["options"]
        return error("ollama", 400, told) if name in sent else None

    endpoint.refusal = refusal
    async with OLLAMA.open(endpoint.url) as backend:
        await backend.complete(question(thinking=False))
        await backend.complete(question(thinking=False))
    has = [name in request.body | request.body["options"] for request in endpoint.questions]
    assert has == [True, False, False]
    last = endpoint.questions[-1].body
    assert {"think", "truncate", "keep_alive", "temperature"} - {name} <= last.keys() | last["options"].keys()


async def test_an_option_of_ollama_left_out_by_hand(endpoint: Endpoint) -> None:
    """--option NAME=null leaves an option out that vlmbatch sends by itself."""
    async with OLLAMA.open(endpoint.url, option=("temperature=null",)) as backend:
        await backend.complete(question())
    assert endpoint.questions[0].body["options"].keys() == {"num_predict"}


async def test_litellm_adapts_too(endpoint: Endpoint) -> None:
    """A provider over LiteLLM gets no temperature that it has refused."""
    endpoint.refusal = refusing(
        lambda sent: "temperature" in sent, 400, words("`temperature` is deprecated for this model.")
    )
    async with LITELLM.open(endpoint.url) as backend:
        done = await backend.complete(question())
    assert done.warnings == ("sent without --temperature, which this model does not accept",)
    assert "temperature" not in endpoint.questions[-1].body
