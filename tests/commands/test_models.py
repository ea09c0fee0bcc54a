"""Which endpoints are queried for their models, and which models are listed."""

from pathlib import Path

import pytest
from endpoint import Endpoint, Model

from vlmbatch.commands.models import each_endpoint, take_inventory
from vlmbatch.config import RunConfig

CLOSED = "http://127.0.0.1:9"


def test_a_config_for_each_address() -> None:
    """Each --base-url gives one config; without any the config stays as it is."""
    two = RunConfig.of(".", base_url=["http://a", "http://b"], model="x")
    assert [(c.endpoint.url, c.endpoint.model) for c in each_endpoint(two)] == [
        ("http://a", "x"),
        ("http://b", "x"),
    ]
    none = RunConfig.of(".")
    assert each_endpoint(none) == [none]


def test_a_file_of_addresses_names_each(tmp_path: Path) -> None:
    """--base-url may be a file with one URL per line, as for a run."""
    (tmp_path / "urls.txt").write_text("http://a\nhttp://b\n")
    found = each_endpoint(RunConfig.of(".", base_url=str(tmp_path / "urls.txt")))
    assert [config.endpoint.url for config in found] == ["http://a", "http://b"]


async def test_both_endpoints_of_the_environment_are_queried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --base-url the models of an Ollama and of an OpenAI-compatible server are listed."""
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
    """OPENAI_BASE_URL with the /v1 of the same Ollama adds no endpoint."""
    monkeypatch.setenv("OLLAMA_HOST", endpoint.url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/v1")
    found = await take_inventory(RunConfig.of("."))
    assert found.places == (endpoint.url,)


async def test_a_named_endpoint_that_is_down_is_missing(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that the environment names and that is down is reported as missing."""
    monkeypatch.setenv("OLLAMA_HOST", CLOSED)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{endpoint.url}/v1")
    found = await take_inventory(RunConfig.of("."))
    assert [error.exit_code for error in found.missing] == [4]
    assert len(found.models) == 2


async def test_an_endpoint_is_queried_once(endpoint: Endpoint) -> None:
    """An endpoint that is loading is queried once and reported as missing."""
    endpoint.routes["/api/tags"] = "503-loading"
    found = await take_inventory(RunConfig.of(".", backend="ollama", base_url=endpoint.url))
    assert [error.exit_code for error in found.missing] == [4]
    assert len(endpoint.requests) == 1


async def test_many_models_are_queried_a_few_at_once() -> None:
    """All models of an older Ollama are listed, with at most ten connections."""
    many = {f"m{n:02}": Model(older=True) for n in range(40)}
    with Endpoint(models=many) as endpoint:
        found = await take_inventory(RunConfig.of(".", base_url=endpoint.url))
        assert endpoint.connections <= 10
    assert [model.context for model in found.models] == [8192] * 40
