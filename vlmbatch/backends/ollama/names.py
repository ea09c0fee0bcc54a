"""The names of models, which Ollama resolves in several forms (types/model/name.go in its source)."""

from collections.abc import Mapping
from typing import Any

HOST = "registry.ollama.ai"
NAMESPACE = "library"
TAG = "latest"


def full_name(name: str) -> str:
    """The complete name, host/namespace/model:tag, in lower case: Ollama ignores the case."""
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, TAG
    *place, model = path.partition("://")[2].split("/") if "://" in path else path.split("/")
    namespace = place.pop() if place else NAMESPACE
    host = "/".join(place) or HOST
    return f"{host}/{namespace}/{model}:{tag or TAG}".lower()


def entry_of(name: str, models: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The listed model that Ollama uses for this name; empty if none is listed."""
    wanted = full_name(name)
    exact = models.get(name)
    return exact or next((entry for listed, entry in models.items() if full_name(listed) == wanted), {})
