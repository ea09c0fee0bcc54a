"""What of the options shapes an answer: the question, the settings of a run, and the name these give it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from vlmbatch.config import RunConfig
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import FailureKind
from vlmbatch.imaging.sizing import sizing_of
from vlmbatch.records import Endpoint, Generation, Request

FLAWS: Mapping[str, FailureKind] = {"length": "truncated", "loop": "degenerate"}
"""The words of --accept, and how answers with these flaws fail without it."""


def question_of(config: RunConfig, prompt: str, schema: str | None = None) -> Request:
    """What is asked about every image, still without one; `schema` as of schemas.schema_text."""
    options = config.generation
    generation = Generation(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        num_ctx=options.num_ctx,
        schema=schema,
        logprobs=options.logprobs,
    )
    return Request(
        images=(),
        prompt=prompt,
        system=config.prompt.system,
        generation=generation,
        accept=frozenset(options.accept.split(",")) - {""},
    )


def accepted_now(config: RunConfig) -> frozenset[FailureKind]:
    """Kinds of failures that --accept lets pass: images that failed so before are asked about again."""
    words = config.generation.accept.split(",")
    return frozenset(kind for word, kind in FLAWS.items() if word in words)


def answer_settings(
    config: RunConfig, endpoint: Endpoint, prompt: str, schema: str | None = None
) -> dict[str, Any]:
    """All that changes an answer, flat, without secrets; a run is named by the digest of this."""
    image = config.image
    # left out where they are not set, so that the digests of older records stay what they are
    later = {
        "max_pixels": image.max_pixels,
        "image_tokens": image.image_tokens,
        "extra_body": config.wire.extra_body,
        "mm_processor_kwargs": config.wire.mm_processor_kwargs,
        "schema": schema,
        "option": " ".join(sorted(config.endpoint.option)) or None,
    }
    return {
        "model": endpoint.model,
        "model_digest": endpoint.digest,
        "prompt": prompt,
        "system": config.prompt.system,
        "max_tokens": config.generation.max_tokens,
        "temperature": config.generation.temperature,
        "seed": config.generation.seed,
        "num_ctx": config.generation.num_ctx,
        "max_size": "auto" if image.max_size == AUTO else sizing_of(image).longest,
        "quality": image.quality,
        **{name: value for name, value in later.items() if value is not None},
    }


def with_known_digest(settings: dict[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """These settings, or those of an earlier run that are the same but for weights that one does not know.

    An endpoint that was away when a run started, and a fallback answered, has not told of its weights.
    """
    runs = [dict(run) for run in earlier]
    if settings in runs:
        return settings
    for run in runs:
        unknown = None in (run.get("model_digest"), settings["model_digest"])
        if unknown and {**run, "model_digest": None} == {**settings, "model_digest": None}:
            return run
    return settings


def run_digest(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that are the same for the same settings, here and anywhere."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
