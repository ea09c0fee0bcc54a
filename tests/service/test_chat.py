"""OpenAI's form of the service, as the package openai uses it."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from endpoint import Endpoint
from serving import Served, data_url, picture
from waiting import until


@pytest.fixture
def served(endpoint: Endpoint) -> Iterator[Served]:
    """A service in front of the endpoint."""
    with Served(endpoint, give_up_after=0) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """A client of the package openai."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def about(*numbers: int, text: str = "What is this?") -> list[Any]:
    """The messages of a question about these pictures."""
    pictures = [{"type": "image_url", "image_url": {"url": data_url(picture(n))}} for n in numbers]
    return [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": text}, *pictures]},
    ]


def test_the_package_openai_gets_an_answer(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """A chat completion has the answer, the usage and the record; the question arrives unchanged."""
    reply = client.chat.completions.create(
        model="tiny-vision", messages=about(0), max_completion_tokens=9, seed=3, top_p=1, n=1, user="u"
    )
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
    assert reply.model == "tiny-vision"
    assert reply.model_extra is not None
    assert reply.model_extra["vlmbatch"]["image"]["width"] == 64
    (asked,) = endpoint.questions
    assert [message["content"] for message in asked.body["messages"]] == ["be brief", "What is this?"]
    assert (asked.body["options"]["num_predict"], asked.body["options"]["seed"]) == (9, 3)
    assert "user" not in asked.body


def test_a_streamed_answer_is_the_whole_answer(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """The pieces of a streamed answer make the answer, with the usage at the end if it is wanted."""
    told = " ".join(f"word{n}" for n in range(60))
    endpoint.answer = lambda request: told
    chunks = list(
        client.chat.completions.create(
            model="tiny-vision", messages=about(0), stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == told
    assert len([piece for piece in pieces if piece]) > 3
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_several_pictures_are_one_question(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """All pictures of a message go to the model in one request, in their order."""
    reply = client.chat.completions.create(model="tiny-vision", messages=about(1, 2))
    assert reply.model_extra is not None
    assert len(reply.model_extra["vlmbatch"]["images"]) == 2
    (asked,) = endpoint.questions
    assert len(asked.pictures) == 2


def test_a_schema_makes_the_answer_json(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """response_format takes a JSON Schema, and the answer is checked."""
    endpoint.script = ["schema_broken_json", "ok"]
    endpoint.answer = lambda request: '{"a": 1}'
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = client.chat.completions.create(model="tiny-vision", messages=about(0), response_format=form)
    assert reply.choices[0].message.content == '{"a": 1}'
    assert reply.model_extra is not None
    assert reply.model_extra["vlmbatch"]["attempts"] == 2


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    """GET /v1/models has the models that requests may name."""
    assert [model.id for model in client.models.list()] == ["tiny-vision"]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "tiny-vision"),
        (
            {"messages": [{"role": "user", "content": "no picture"}]},
            openai.UnprocessableEntityError,
            "no image",
        ),
        (
            {"messages": [*about(0), {"role": "assistant", "content": "a"}, *about(0)[1:]]},
            openai.UnprocessableEntityError,
            "a single message with the role user",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}] * 101}]},
            openai.UnprocessableEntityError,
            "more than 100 items",
        ),
        ({"n": 2}, openai.UnprocessableEntityError, "n is not supported"),
        ({"top_p": 0.5}, openai.UnprocessableEntityError, "top_p is not supported"),
        ({"temperature": 3}, openai.UnprocessableEntityError, "temperature"),
    ],
)
def test_what_is_not_supported_is_refused(
    client: openai.OpenAI, endpoint: Endpoint, change: dict[str, Any], error: type[Exception], told: str
) -> None:
    """A request that cannot be answered as asked is refused with the reason, and nothing is sent."""
    with pytest.raises(error, match=told):
        client.chat.completions.create(**{"model": "tiny-vision", "messages": about(0), **change})
    assert len(endpoint.questions) == 0


def test_a_failure_has_the_form_of_openai(client: openai.OpenAI, endpoint: Endpoint) -> None:
    """A failure of the model is an error of OpenAI's form, whose code is the kind; also if streaming."""
    endpoint.script = lambda request: "content_filter"
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(model="tiny-vision", messages=about(0), stream=True)
    assert caught.value.code == "refused"
    endpoint.down()
    until(lambda: _status(client) in (502, 503))
    endpoint.up()


def _status(client: openai.OpenAI) -> int:
    try:
        client.with_options(timeout=20).chat.completions.create(model="tiny-vision", messages=about(7))
    except openai.APIStatusError as error:
        return error.status_code
    return 200
