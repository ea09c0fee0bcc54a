"""The servers that --backend names: their default URLs, their keys and their request formats."""

from typing import Any

import pytest
from backend_contract import KINDS, Kind, question
from endpoint import Endpoint

from vlmbatch.backends.openai.backend import OpenAICompatibleBackend
from vlmbatch.backends.openai.servers import GENERIC, OPENAI, SERVER_TYPES, ServerType, server_type_at
from vlmbatch.errors import ConfigError, FatalBackendError, RejectedError

KEY = "some-key-123"
TEMPLATE = {"chat_template_kwargs": {"enable_thinking": False}}
PLACES = {
    "vllm": "http://127.0.0.1:8000/v1",
    "llama-server": "http://127.0.0.1:8080/v1",
    "lmstudio": "http://127.0.0.1:1234/v1",
    "sglang": "http://127.0.0.1:30000/v1",
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
HOSTED = {"openai": "OPENAI_API_KEY", "openrouter": "OPENROUTER_API_KEY"}


def sent(server_type: ServerType, endpoint: Endpoint) -> OpenAICompatibleBackend:
    """A backend that queries the endpoint as a server of this type."""
    return OpenAICompatibleBackend(
        f"{endpoint.url}/v1", server_type=server_type, model="tiny-vision", api_key=None, timeout_s=30
    )


def header_of(backend: Any) -> str | None:
    """The Authorization header that a backend would send."""
    return dict(backend._transport._credentials.headers).get("Authorization")


@pytest.mark.parametrize("name", PLACES)
def test_place_and_key(name: str) -> None:
    """Each backend has the default URL of its server, where only a provider gets the key of its variable."""
    environ = {"OPENAI_API_KEY": "openai-key", "OPENROUTER_API_KEY": "openrouter-key"}
    backend = KINDS[name].open(None, environ)
    assert (backend.place, backend.name) == (PLACES[name], name)
    own = {"openai": "openai-key", "openrouter": "openrouter-key"}.get(name)
    assert header_of(backend) == (own and f"Bearer {own}")
    assert header_of(KINDS[name].open(None, environ, api_key=KEY)) == f"Bearer {KEY}"


@pytest.mark.parametrize("name", ["llama-server", "lmstudio", "sglang", "openrouter"])
def test_the_address_of_another_server(name: str) -> None:
    """OPENAI_BASE_URL does not change the URL of these servers, since it may belong to another server."""
    environ = {"OPENAI_BASE_URL": "http://elsewhere.invalid/v1", "OPENROUTER_API_KEY": KEY}
    assert KINDS[name].open(None, environ).place == PLACES[name]
    assert KINDS[name].open("http://here.invalid/v1", environ).place == "http://here.invalid/v1"


@pytest.mark.parametrize(("name", "variable"), HOSTED.items())
def test_hosted_without_a_key(name: str, variable: str) -> None:
    """A hosted server requires a key; the error names its variable, and an Authorization header will do."""
    with pytest.raises(ConfigError, match=f"needs a key; set {variable}") as caught:
        KINDS[name].open(None, {"OPENAI_API_KEY" if name == "openrouter" else "OPENROUTER_API_KEY": KEY})
    assert caught.value.exit_code == 2
    assert KINDS[name].open(None, header=["Authorization: Bearer other"]).name == name
    assert KINDS[name].open("http://gateway.invalid/v1").name == name


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("https://api.openai.com/v1", OPENAI),
        ("https://eu.api.openai.com/v1", OPENAI),
        ("https://api.openai.com.evil.invalid/v1", GENERIC),
        ("http://127.0.0.1:1234/v1", GENERIC),
    ],
)
def test_openai_elsewhere_is_any_server(url: str, meant: ServerType) -> None:
    """Only OpenAI's own hosts get its request format; elsewhere `openai` is a generic server."""
    assert server_type_at(SERVER_TYPES["openai"], url) is meant
    assert server_type_at(SERVER_TYPES["vllm"], url) is SERVER_TYPES["vllm"]


@pytest.mark.parametrize(
    ("name", "limit", "thinking"),
    [
        ("vllm", "max_tokens", TEMPLATE),
        ("sglang", "max_tokens", TEMPLATE),
        ("llama-server", "max_tokens", TEMPLATE),
        ("lmstudio", "max_tokens", {}),
        ("openrouter", "max_tokens", {"reasoning": {"enabled": False}}),
        ("openai", "max_completion_tokens", {}),
    ],
)
async def test_request_formats(name: str, limit: str, thinking: dict[str, Any], endpoint: Endpoint) -> None:
    """The token limit and the switch for thinking have the names that each server expects."""
    async with sent(SERVER_TYPES[name], endpoint) as backend:
        await backend.complete(question(thinking=False, max_tokens=7, seed=3))
    body = endpoint.questions[0].body
    fixed = {"model", "messages", "stream", "temperature", "seed"}
    assert body.keys() == {*fixed, limit, *thinking, *SERVER_TYPES[name].request_format.arguments}
    assert body[limit] == 7
    assert {key: body[key] for key in thinking} == thinking


async def test_a_refused_parameter_is_left_out(endpoint: Endpoint) -> None:
    """If a model refuses temperature and seed, later requests omit them, and a warning says so."""
    endpoint.refuses = frozenset(("temperature", "seed", "max_tokens"))
    async with sent(GENERIC, endpoint) as backend:
        done = await backend.complete(question(seed=1))
        assert len(endpoint.questions) == 4
        again = await backend.complete(question(seed=1))
        plain = await backend.complete(question())
    assert len(endpoint.questions) == 6
    assert endpoint.questions[-1].body["max_completion_tokens"] == 512
    assert (
        done.warnings
        == again.warnings
        == (
            "sent without --temperature, which this model does not accept",
            "sent without --seed, which this model does not accept",
        )
    )
    assert plain.warnings == done.warnings[:1]


async def test_a_refused_thinking_switch_is_left_out(endpoint: Endpoint) -> None:
    """If a strict server refuses the argument that turns thinking off, the request is sent without it."""
    endpoint.refuses = frozenset(("chat_template_kwargs",))
    async with sent(GENERIC, endpoint) as backend:
        done = await backend.complete(question(thinking=False))
    assert (done.warnings, len(endpoint.questions)) == ((), 2)


async def test_a_wrong_value_is_an_error(endpoint: Endpoint) -> None:
    """A refusal that names no optional parameter is an error."""
    endpoint.script = ["400"]
    async with sent(GENERIC, endpoint) as backend:
        with pytest.raises(RejectedError, match="the request is not what it should be"):
            await backend.complete(question())
    endpoint.refuses = frozenset(("messages",))
    async with sent(GENERIC, endpoint) as backend:
        with pytest.raises(FatalBackendError, match="Unsupported parameter: 'messages'"):
            await backend.complete(question())
    assert len(endpoint.questions) == 2


@pytest.mark.parametrize("kind", [KINDS["openrouter"], KINDS["vllm"]], ids=["openrouter", "vllm"])
async def test_images_that_leave_this_machine(kind: Kind, endpoint: Endpoint) -> None:
    """A note says that images leave this machine if the server is hosted."""
    async with kind.open(endpoint.url) as backend:
        notes = (await backend.preflight()).notes
    assert [note.endswith("images leave this machine") for note in notes] == [True] * SERVER_TYPES[
        kind.name
    ].hosted


async def test_a_variant_of_a_hosted_model(endpoint: Endpoint) -> None:
    """OpenRouter's NAME:nitro is accepted if NAME is listed, and requests use the whole name."""
    async with KINDS["openrouter"].open(endpoint.url, model="tiny-vision:nitro") as backend:
        assert (await backend.preflight()).model == "tiny-vision:nitro"
