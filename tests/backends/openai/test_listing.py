"""The list of models of a server with the OpenAI API: its shapes, its gaps, and the names of a model."""

import json
from typing import Any

import pytest
from backend_contract import KINDS, babbling, reply
from endpoint import Endpoint, Model
from endpoint.messages import Received

from vlmbatch.backends.http.hints import Hint
from vlmbatch.backends.openai.listing import Listing
from vlmbatch.errors import FatalBackendError

VLLM = KINDS["vllm"]
TINY = {"id": "tiny-vision", "owned_by": "me"}


def listing(value: object) -> Listing:
    return Listing.of(Hint(asked="GET /v1/models", value=value))


@pytest.mark.parametrize(
    "value",
    [
        {"data": [TINY]},
        [TINY],
        {"models": [{"name": "tiny-vision"}]},
        {"data": None, "models": [{"model": "tiny-vision"}]},
        {"result": {"data": [TINY]}},
        {"data": {"models": ["tiny-vision"]}},
        ["tiny-vision"],
    ],
    ids=json.dumps,
)
def test_a_list_in_any_shape_is_complete(value: object) -> None:
    """A list of named models is read, bare, wrapped or under another key, and names all models."""
    found = listing(value)
    assert (list(found.models), found.is_complete) == (["tiny-vision"], True)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"data": []},
        {"data": None},
        {"data": 5},
        {"data": [5]},
        {"data": [TINY, {"owned_by": "me"}]},
        {"data": [TINY, {"id": "*"}]},
        {"data": [TINY, {"id": "openai/*"}]},
        {"data": [TINY], "has_more": True},
        {"data": [TINY], "next": "/v1/models?page=2"},
        {"models": [TINY], "nextPageToken": "x"},
    ],
    ids=json.dumps,
)
def test_a_list_with_gaps_denies_no_model(value: object) -> None:
    """A list that is empty, paged, has a pattern or an entry without a name may lack a model that exists."""
    assert not listing(value).is_complete


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"id": "long", "aliases": ["tiny"]}, "tiny"),
        ({"id": "long", "meta": {"aliases": ["tiny"]}}, "tiny"),
        ({"id": "long", "root": "org/tiny"}, "org/tiny"),
        ({"id": "models/tiny"}, "tiny"),
        ({"id": "tiny"}, "models/tiny"),
    ],
)
def test_a_model_is_found_by_each_of_its_names(entry: dict[str, Any], name: str) -> None:
    """A model is found by its aliases, its root, and with or without Gemini's prefix."""
    assert listing({"data": [entry]}).find(name) == entry
    assert listing({"data": [entry]}).find("another") is None


async def test_a_name_that_the_list_lacks_and_the_server_answers() -> None:
    """A model that a complete list lacks is used if a question with a picture is answered under its name."""
    with Endpoint(models={"secret": Model()}) as endpoint:
        endpoint.routes["/v1/models"] = 'body:{"data": [{"id": "public"}]}'
        async with VLLM.open(endpoint.url, model="secret") as backend:
            found = await backend.preflight()
    assert found.model == "secret"
    assert [note for note in found.notes if "does not list secret, but answers requests for it" in note]


async def test_a_server_that_answers_with_another_model() -> None:
    """If a server answers any name with a model that it lists, it does not have a model of the typed name."""
    listed = {"data": [{"id": "real"}]}
    answer = {"model": "real", "choices": [{"message": {"content": "orange"}, "finish_reason": "stop"}]}
    raw = reply({**listed, **answer})
    async with babbling(raw) as url, VLLM.open(url, model="typo") as backend:
        with pytest.raises(FatalBackendError, match="no model 'typo'; nearest: real"):
            await backend.preflight()


async def test_llama_cpp_is_not_asked_for_another_name() -> None:
    """llama.cpp's server answers under any name, so that its list alone decides, without a question."""
    with Endpoint(owned_by="llamacpp", models={"real": Model()}) as endpoint:
        async with KINDS["llama-server"].open(endpoint.url, model="typo") as backend:
            with pytest.raises(FatalBackendError, match="no model 'typo'; nearest: real"):
                await backend.preflight()
    assert not endpoint.canaries


def props_of(endpoint: Endpoint) -> list[Received]:
    return [request for request in endpoint.requests if request.path == "/props"]


async def test_the_router_of_llama_cpp_is_asked_for_the_model() -> None:
    """/props is requested for the model of the run, and not while a router has not loaded that model."""
    props = {"modalities": {"vision": False}, "total_slots": 3}
    with Endpoint(owned_by="llamacpp", props=props, models={"a/b:Q4": Model()}) as endpoint:
        async with KINDS["llama-server"].open(endpoint.url, model="a/b:Q4") as backend:
            found = await backend.preflight()
            assert [request.query for request in props_of(endpoint)] == ["model=a/b:Q4"]
            assert (found.sees, found.slots) == (False, 3)
            entry = {"id": "a/b:Q4", "owned_by": "llamacpp", "status": {"value": "unloaded"}}
            endpoint.routes["/v1/models"] = f"body:{json.dumps({'data': [entry]})}"
            found = await backend.preflight()
    assert (len(props_of(endpoint)), found.sees, found.slots) == (1, None, None)


@pytest.mark.parametrize("props", [{}, {"role": "router"}, {"modalities": {}}, {"modalities": None}], ids=str)
async def test_a_missing_fact_is_not_blind(props: dict[str, Any]) -> None:
    """If /props of llama.cpp's server lacks the modalities, the list of models decides."""
    with Endpoint(owned_by="llamacpp", props=props, models={"m": Model()}) as endpoint:
        async with KINDS["llama-server"].open(endpoint.url, model="m") as backend:
            assert (await backend.preflight()).sees is True


async def test_a_query_of_the_url_is_kept() -> None:
    """The query of --base-url comes after the query of a helper request."""
    with Endpoint(owned_by="llamacpp", props={}, models={"m": Model()}) as endpoint:
        async with KINDS["llama-server"].open(f"{endpoint.url}/v1?key=abc", model="m") as backend:
            await backend.preflight()
    assert [request.query for request in props_of(endpoint)] == ["model=m&key=abc"]
