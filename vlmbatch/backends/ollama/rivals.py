"""Says which loaded models may delay a request: Ollama unloads a model only when it is not in use."""

from collections.abc import Sequence
from datetime import UTC, datetime

from vlmbatch.backends.ollama.loaded import LoadedModel
from vlmbatch.backends.ollama.names import full_name

ADVICE = (
    "if another program uses this Ollama, give it the same model, --num-ctx and --option as this run, "
    "or wait until it is done"
)
_LONGEST_MIN = 24 * 60
"""A model that stays longer is never unloaded (keep_alive: -1)."""


def why_slow(
    loaded: Sequence[LoadedModel], model: str, context: int | None, now: datetime | None = None
) -> str | None:
    """What is loaded, and what this run needs, for a message; None if nothing is loaded.

    `model` and `context` (in tokens, None for Ollama's default) are those of this run.
    """
    if not loaded:
        return None
    now = now or datetime.now(UTC)
    there = " and ".join(_named(each, now) for each in loaded)
    wanted = model if context is None else f"{model} with a context of {context:,} tokens"
    fits = any(
        full_name(each.name) == full_name(model) and context in (None, each.context) for each in loaded
    )
    needs = "" if fits else f", while this run needs {wanted}"
    return f"Ollama has loaded {there}{needs}; {ADVICE}"


def _named(loaded: LoadedModel, now: datetime) -> str:
    """The model with its context, and how long it stays loaded without a request."""
    context = "" if loaded.context is None else f" with a context of {loaded.context:,} tokens"
    minutes = 0 if loaded.until is None else (loaded.until - now).total_seconds() / 60
    if minutes <= 0:
        return loaded.name + context
    stays = f"for another {max(round(minutes), 1)} min" if minutes <= _LONGEST_MIN else "without a time limit"
    return f"{loaded.name}{context} {stays}"
