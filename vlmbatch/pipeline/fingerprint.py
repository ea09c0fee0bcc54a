"""The fingerprint of a run: a digest of all settings that change an answer."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vlmbatch.config import RunConfig
from vlmbatch.config.given import given_names
from vlmbatch.config.spec import AUTO
from vlmbatch.errors import FailureKind
from vlmbatch.imaging.sizing import sizing_of
from vlmbatch.records import Endpoint, Generation, Request

FLAWS: Mapping[str, FailureKind] = {"length": "truncated", "loop": "degenerate"}
"""The words of --accept, and the kind of failure of such an answer without it."""


def request_of(config: RunConfig, prompt: str, schema: str | None = None) -> Request:
    """The request that these options make, without images; `schema` is text as of schemas.schema_text."""
    options = config.generation
    generation = Generation(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        num_ctx=options.num_ctx,
        schema=schema,
        logprobs=options.logprobs,
        given=given_names(config),
    )
    return Request(
        images=(),
        prompt=prompt,
        system=config.prompt.system,
        generation=generation,
        accept=frozenset(options.accept.split(",")) - {""},
    )


def accepted_now(config: RunConfig) -> frozenset[FailureKind]:
    """The kinds of failures that --accept allows: images with such a failure are retried."""
    words = config.generation.accept.split(",")
    return frozenset(kind for word, kind in FLAWS.items() if word in words)


def answer_settings(
    config: RunConfig, endpoint: Endpoint, prompt: str, schema: str | None = None
) -> dict[str, Any]:
    """All settings that change an answer, flat and without secrets."""
    image = config.image
    # the order of options does not matter, except that the last value of a name counts
    options = {text.partition("=")[0].strip(): text for text in config.endpoint.option}
    # left out if they are not set, so that older records keep their fingerprint
    later = {
        "max_pixels": image.max_pixels,
        "image_tokens": image.image_tokens,
        "extra_body": config.request.extra_body,
        "mm_processor_kwargs": config.request.mm_processor_kwargs,
        "schema": schema,
        "option": " ".join(sorted(options.values())) or None,
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


def with_known_digest(settings: dict[str, Any], earlier: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """These settings, with the model digest of an earlier run that differs only in that one is unknown.

    The digest is unknown if the endpoint was down when the run started and a fallback answered. `earlier` has
    the settings of runs by fingerprint.
    """
    if run_digest(settings) in earlier:
        return settings
    for run, old in earlier.items():
        candidate = {**settings, "model_digest": old.get("model_digest")}
        is_unknown = None in (candidate["model_digest"], settings["model_digest"])
        if is_unknown and run_digest(candidate) == run:
            return candidate
    return settings


def run_digest(settings: Mapping[str, Any]) -> str:
    """The fingerprint: twelve hexadecimal digits, the same for the same settings on any machine."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
