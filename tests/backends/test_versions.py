"""The version of the engine, as each backend reports it after its preflight."""

import asyncio
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, LITELLM, Kind, each_kind
from endpoint import Endpoint, Received
from endpoint.messages import Line

from vlmbatch.backends.registry import open_backend
from vlmbatch.backends.values import LONGEST_VERSION
from vlmbatch.config import RunConfig
from vlmbatch.records import Endpoint as Found

VERSIONS = {"ollama": "7.1-rc2", "vllm": "7.2.dev3+g5025494e"}
RECORDED = json.loads((Path(__file__).parents[1] / "wire" / "llama_cpp.json").read_text())
(PROPS,) = (json.loads(each["body"]) for each in RECORDED if each["name"] == "props")


async def found(kind: Kind, server: Endpoint) -> Found:
    """The endpoint that the preflight of this backend returns."""
    server.versions = VERSIONS
    async with kind.open(server.url) as backend:
        return await backend.preflight()


def asked(server: Endpoint) -> list[str]:
    """The paths of the requests for a version."""
    return [request.path for request in server.requests if request.path.endswith("/version")]


@each_kind
async def test_the_version_is_that_of_the_server(kind: Kind) -> None:
    """Ollama and vLLM get one request for their version, each on its own route; a hosted server gets none."""
    with kind.endpoint() as server:
        version = (await found(kind, server)).version
    if kind.backend == "openrouter":
        assert (version, asked(server)) == (None, [])
    elif kind.wire == "ollama":
        assert (version, asked(server)) == (VERSIONS["ollama"], ["/api/version"])
    else:
        assert (version, asked(server)) == (VERSIONS["vllm"], ["/version"])


@pytest.mark.parametrize("name", ["llama-server", "openai", "auto-vllm"])
async def test_llama_cpp_server_reports_its_build(name: str) -> None:
    """The version of llama.cpp's server is the build in /props, and no further request is sent."""
    with KINDS[name].endpoint(owned_by="llamacpp", props=PROPS) as server:
        assert (await found(KINDS[name], server)).version == PROPS["build_info"] == "b0-unknown"
    assert asked(server) == []


@pytest.mark.parametrize("kind", [KINDS["openai"], KINDS["vllm"], LITELLM], ids=["openai", "vllm", "litellm"])
async def test_another_server_is_not_asked(kind: Kind) -> None:
    """A server whose model is not owned by vLLM gets no request for its version, which is unknown."""
    with kind.endpoint(owned_by="me") as server:
        assert (await found(kind, server)).version is None
    assert asked(server) == []


@pytest.mark.slow
async def test_the_embedded_engine_has_the_version_of_its_package() -> None:
    """The version of the embedded engine is that of the package xllamacpp."""
    async with open_backend(RunConfig.of("photos", backend="llama-cpp"), {}) as backend:
        assert (await backend.preflight()).version == metadata.version("xllamacpp")


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("v" * LONGEST_VERSION, "v" * LONGEST_VERSION),
        ("b7000 (5025494e), \u00e9", "b7000 (5025494e), \u00e9"),
        *(
            (odd, None)
            for odd in (
                "v" * (LONGEST_VERSION + 1),
                "",
                "1\n2",
                "1\0",
                "\x1b[2J1",
                "1\u202e",
                7,
                None,
                ["1"],
                {},
            )
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["ollama", "vllm", "llama-server"])
async def test_a_value_that_is_no_version(name: str, told: Any, version: str | None) -> None:
    """A version that is no text, is too long, or has a control character counts as missing."""
    owner, body = ("llamacpp" if name == "llama-server" else "vllm"), json.dumps({"version": told})
    with KINDS[name].endpoint(owned_by=owner, props={"build_info": told}) as server:
        server.routes = dict.fromkeys(("/api/version", "/version"), f"body:{body}")
        assert (await found(KINDS[name], server)).version == version


class BothAtOnce(Endpoint):
    """An Ollama that replies to the requests for a model's facts and for the version once it has both."""

    def __init__(self) -> None:
        super().__init__(speaks=("ollama",))
        self.both = asyncio.Barrier(2)

    async def _perform(self, line: Line, request: Received, mode: str) -> bool:
        if request.path in ("/api/show", "/api/version"):
            await self.both.wait()
        return await super()._perform(line, request, mode)


async def test_ollama_is_asked_for_both_at_once() -> None:
    """The version of Ollama costs no round trip: it is requested together with the facts of the model."""
    with BothAtOnce() as server:
        here = await found(KINDS["ollama"], server)
    assert (here.version, here.sees, here.notes) == (VERSIONS["ollama"], True, ())
