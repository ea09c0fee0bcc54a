"""The options of a question as JSON values: those that differ from the defaults, the same for any worker."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vlmbatch.config import RunConfig
from vlmbatch.prompts import prompt_text
from vlmbatch.prompts.schemas import schema_text

GROUPS = ("prompt", "generation", "image")


def question_options(config: RunConfig) -> dict[str, Any]:
    """The options of the question in this config, with the texts of its files; blocks.

    Raises:
        ConfigError: a file cannot be read, or the schema cannot be used.
    """
    usual = RunConfig(paths=config.paths)
    options = {
        f.name: getattr(getattr(config, group), f.name)
        for group in GROUPS
        for f in fields(getattr(config, group))
        if getattr(getattr(config, group), f.name) != getattr(getattr(usual, group), f.name)
    }
    options.pop("prompt_file", None)
    options["prompt"] = prompt_text(config.prompt)
    schema = schema_text(config.generation.schema)
    if schema is not None:
        options["schema"] = schema
    return options


def digest_of(options: Mapping[str, Any]) -> str:
    """The digest of these options: the name of the question in Redis."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:32]
