"""Which endpoints are asked for their models, and what of each is kept."""

from pathlib import Path

import pytest
from endpoint import Endpoint, Model

from vlmbatch.commands.models import each_endpoint, take_inventory
from vlmbatch.config import RunConfig

CLOSED = "http://127.0.0.1:9"


def test_a_config_for_each_address() -> None:
    """Each has one of the addresses; without any the options stay as they are."""
    two = RunConfig.of(".", base_url=["http://a", "http://b"], model="x")
    assert [(c.endpoint.url, c.endpoint.model) for c in each_endpoint(two)] == [
        ("http://a", "x"),
        ("http://b", "x"),
    ]
    none = RunConfig.of(".")
    assert each_endpoint(none) == [none]


def test_a_file_of_addresses_names_each(tmp_path: Path) -> None:
    """As for a run, --base-url may be a file with an address a line."""
    (tmp_path / "urls.txt").write_text("http://a\nhttp://b\n")
    found = each_endpoint(RunConfig.of(".", base_url=str(tmp_path / "urls.txt")))
    assert [config.endpoint.url for config in found] == ["http://a", "http://b"]


async def test_both_places_of_the_environment_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --base-url an Ollama and an OpenAI-compatible server are both listed."""
    with Endpoint(speaks=("ollama",)) as ollama, Endpoint(speaks=("openai",)) as vllm:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{vllm.url}/v1")
        found = await take_inventory(RunConfig.of("."))
    assert found.places == (ollama.url, f"{vllm.url}/v1")
    assert {model.backend for model in found.models} == {"ollama", "vllm"}
    assert found.missing == ()


async def test_an_address_under_two_names_is_one_endpoint(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENAI_BASE_URL that leads to the /v1 of the same Ollama adds nothing."""
    monkeypatch.setenv("OLLAMA_HOST", endpoint.url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/v1")
    found = await take_inventory(RunConfig.of("."))
    assert found.places == (endpoint.url,)


async def test_a_named_place_that_is_away_is_missing(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom the environment names is told of where others are found; a default place is not."""
    monkeypatch.setenv("OLLAMA_HOST", CLOSED)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/v1")
    found = await take_inventory(RunConfig.of("."))
    assert [error.exit_code for error in found.missing] == [4]
    assert len(found.models) == 2


async def test_it_is_asked_once(endpoint: Endpoint) -> None:
    """A list is wanted at once: an endpoint that is loading is missing."""
    endpoint.routes["/api/tags"] = "503-loading"
    found = await take_inventory(RunConfig.of(".", backend="ollama", base_url=endpoint.url))
    assert [error.exit_code for error in found.missing] == [4]
    assert len(endpoint.requests) == 1


async def test_many_models_are_asked_about_a_few_at_once() -> None:
    """However many models an older Ollama has, all are told of."""
    many = {f"m{n:02}": Model(older=True) for n in range(40)}
    with Endpoint(models=many) as endpoint:
        found = await take_inventory(RunConfig.of(".", base_url=endpoint.url))
        assert endpoint.connections <= 10
    assert [model.context for model in found.models] == [8192] * 40
