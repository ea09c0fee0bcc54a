"""The facts of the models of an Ollama server, which it reports on three routes."""

from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.http.hints import Hint
from vlmbatch.backends.ollama.hints import Models
from vlmbatch.backends.ollama.replies import capabilities_of, context_of, remote_host_of
from vlmbatch.backends.values import count, mapping, mappings, string
from vlmbatch.records import ModelFacts


def facts_of(models: Models, place: str, shown: Models, ps: Hint) -> list[ModelFacts]:
    """The facts of the listed models, sorted by name; `shown` has more of them, `ps` the loaded models."""
    loaded: Models | None = None
    if isinstance(ps.object.get("models"), list):  # versions before 0.1.33 do not have this route
        loaded = {string(m.get("name")): m for m in mappings(ps.object["models"])}
    return [_facts(name, place, models[name], shown[name], loaded) for name in sorted(models)]


def _facts(
    name: str,
    place: str,
    entry: Mapping[str, Any],
    shown: Mapping[str, Any],
    loaded: Models | None,
) -> ModelFacts:
    details = {**mapping(shown.get("details")), **mapping(entry.get("details"))}
    capabilities = capabilities_of(entry) or capabilities_of(shown)
    running = None if loaded is None else loaded.get(name)
    elsewhere = remote_host_of(name, entry, shown) or None
    return ModelFacts(
        name=name,
        backend="ollama",
        endpoint=place,
        bytes=count(entry.get("size")) or None,
        parameters=string(details.get("parameter_size")) or None,
        quantization=string(details.get("quantization_level")) or None,
        context=context_of(shown) or context_of(entry),
        sees=None if capabilities is None else "vision" in capabilities,
        loaded=None if loaded is None or elsewhere else running is not None,
        on_gpu=None if running is None else _on_gpu(running),
        loaded_context=None if running is None else count(running.get("context_length")) or None,
        elsewhere=elsewhere,
    )


def _on_gpu(running: Mapping[str, Any]) -> float | None:
    """The share of a loaded model in GPU memory; the CPU processes the rest."""
    size = count(running.get("size"))
    return min(count(running.get("size_vram")) / size, 1.0) if size else None
