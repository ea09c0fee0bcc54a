"""The names under which Ollama finds a model."""

import pytest
from backend_contract import KINDS
from endpoint import Endpoint, Model

from vlmbatch.backends.ollama.names import entry_of, full_name

OLLAMA = KINDS["ollama"]
HF = "hf.co/ggml-org/SmolVLM-256M-Instruct-GGUF:Q8_0"

# the forms of Ollama's name_test.go
NAMES = {
    "m": "registry.ollama.ai/library/m:latest",
    "m:7b": "registry.ollama.ai/library/m:7b",
    "M:7B": "registry.ollama.ai/library/m:7b",
    "library/m": "registry.ollama.ai/library/m:latest",
    "me/m:q4": "registry.ollama.ai/me/m:q4",
    "registry.ollama.ai/library/m": "registry.ollama.ai/library/m:latest",
    "https://registry.ollama.ai/library/m:latest": "registry.ollama.ai/library/m:latest",
    "localhost:5000/me/m": "localhost:5000/me/m:latest",
    "localhost:5000/me/m:7b": "localhost:5000/me/m:7b",
    HF: HF.lower(),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_completed_as_ollama_does(name: str) -> None:
    """Host, namespace and tag have Ollama's defaults, and the case does not matter."""
    assert full_name(name) == NAMES[name]


def test_the_exact_name_comes_first() -> None:
    """If two listed models differ only in case, the typed one is used."""
    models = {"M:latest": {"digest": "1"}, "m:latest": {"digest": "2"}}
    assert entry_of("m:latest", models) == {"digest": "2"}
    assert entry_of("m:8b", models) == {}


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("tiny", "tiny"),
        ("tiny:latest", "tiny"),
        ("TINY", "tiny"),
        ("library/tiny", "tiny"),
        ("registry.ollama.ai/library/tiny", "tiny"),
        ("registry.ollama.ai/library/Tiny:latest", "tiny"),
        ("tiny:7b", "Tiny:7B"),
        (HF.lower(), HF),
    ],
)
async def test_the_digest_is_known_for_each_name(name: str, listed: str) -> None:
    """Preflight finds the digest of a model under every name that Ollama resolves."""
    with Endpoint(models={listed: Model(digest="abc")}) as endpoint:
        async with OLLAMA.open(endpoint.url, model=name) as backend:
            found = await backend.preflight()
    assert found.digest == "abc"
    assert not found.notes
