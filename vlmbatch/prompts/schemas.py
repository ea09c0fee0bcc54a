"""Structured answers (--schema): reads JSON Schemas and checks the answers of a model."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from vlmbatch import strict_json
from vlmbatch.config.answer_class import AnswerClass
from vlmbatch.config.groups import is_schema_itself
from vlmbatch.config.text_file import read_text
from vlmbatch.errors import BadAnswerError, ConfigError
from vlmbatch.prompts.checking import CHECKER, CheckFailedError
from vlmbatch.prompts.embedded_json import candidates
from vlmbatch.prompts.instances import instance_of
from vlmbatch.prompts.references import References
from vlmbatch.records import Completion

# fmt: off
CONSTRAINTS = frozenset((
    "$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "type", "enum",
    "const", "format", "pattern", "required", "properties", "patternProperties", "additionalProperties",
    "additionalItems", "unevaluatedProperties", "unevaluatedItems", "propertyNames", "dependencies",
    "dependentSchemas", "dependentRequired", "items", "prefixItems", "contains", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties", "uniqueItems",
))
"""The keywords of JSON Schema that limit an answer."""
# fmt: on
LONGEST_ANSWER = 1_000_000
"""Characters; an answer of 4,000 tokens has about 16,000."""
MOST_INSIDE = 50
"""If a text has more objects and lists than this, none of them is the answer."""


_EXAMPLE = 'write {"type": "object", "properties": {...}}'


def schema_text(typed: str | None, answer_class: type[AnswerClass] | None = None) -> str | None:
    """The JSON Schema in the text or file of --schema, with its keys in the order as written; blocks.

    `answer_class` is the class whose schema it is, for messages.

    Engines write the properties of an answer in the order of the schema, so the order changes answers.

    Raises:
        ConfigError: it cannot be read, is not JSON, has a key twice, or is not a usable schema.
    """
    if typed is None:
        return None
    named = _named(typed, answer_class)
    try:
        text = typed if is_schema_itself(typed) else read_text(typed)
        schema = strict_json.loads(text, unique_keys=True)
    except OSError as error:
        raise ConfigError(
            f"{named} cannot be read: {error.strerror}; give a file, or the schema itself"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{named} is not JSON: {error}; correct it, or name its file") from error
    if not isinstance(schema, dict):
        raise ConfigError(f"{named} is not a JSON Schema, since it is not an object; {_EXAMPLE}")
    _refuse_unusable(schema, named, _EXAMPLE if answer_class is None else "give the class a field")
    return json.dumps(schema, separators=(",", ":"))


def _named(typed: str, answer_class: type[AnswerClass] | None) -> str:
    """How messages name the schema: by its class, by its file, or by its first characters."""
    if answer_class is not None:
        return f"the schema of {answer_class.__name__}"
    return f"--schema {typed}" if len(typed) <= 60 else f"--schema {typed[:57]}..."


def _refuse_unusable(schema: dict[str, Any], named: str, advice: str) -> None:
    references = References(schema)
    if (elsewhere := references.elsewhere()) is not None:
        raise ConfigError(f"{named} refers to {elsewhere}; include that in the schema itself")
    if (endless := references.endless()) is not None:
        raise ConfigError(
            f'{named} refers to itself without end with "{endless}"; '
            "write this reference below properties or items"
        )
    try:
        flaw = CHECKER.check(json.dumps(schema), [])
    except CheckFailedError as error:
        raise ConfigError(f"{named} {error}; make it smaller") from error
    except OSError as error:
        raise ConfigError(
            f"{named} cannot be checked: {error}; allow one more process (ulimit -u)"
        ) from error
    if isinstance(flaw, str):
        raise ConfigError(f"{named} is not a JSON Schema that can be used: {flaw}; correct it")
    if schema and CONSTRAINTS.isdisjoint(schema):
        raise ConfigError(
            f"{named} accepts every answer: it has no keyword of JSON Schema such as properties; {advice}"
        )


class AnswerSchema:
    """The schema that answers must match, and perhaps the pydantic class of the parsed answers."""

    def __init__(self, schema: str, answer_class: type[AnswerClass] | None = None) -> None:
        """`schema` is as schema_text() returns it. Without a class, parsed answers are plain JSON values."""
        self._schema = schema
        self._class = answer_class

    def read(self, completion: Completion) -> Completion:
        """The completion with its answer parsed.

        An answer that is not JSON may have it inside other text: the only object or list there that matches
        is the answer, with a warning.

        Raises:
            BadAnswerError: the answer is not JSON, or does not match the schema or the class; says where.
            AnswerClassError: the class raised another exception.
        """
        if len(completion.text) > LONGEST_ANSWER:
            raise _bad(f"the answer is longer than {LONGEST_ANSWER:,} characters", completion)
        try:
            data = _parsed(_unfenced(completion.text))
        except ValueError as error:
            return self._read_inside(completion, error)
        (flaw,) = self._flaws([data], completion)
        if flaw is not None:
            raise _bad(f"the answer does not match the schema: {flaw}", completion)
        return self._with(completion, data)

    def parse_stored(self, completion: Completion) -> Completion | None:
        """A stored completion with its `data` parsed; None if the class refuses it.

        Raises AnswerClassError as read() does.
        """
        try:
            return replace(completion, parsed=self._instance(completion.data))
        except ValueError:
            return None

    def _with(self, completion: Completion, data: Any) -> Completion:
        """The completion with this answer, which matches the schema."""
        try:
            return replace(completion, data=data, parsed=self._instance(data))
        except ValueError as error:
            name = getattr(self._class, "__name__", "")
            raise _bad(f"the answer is not a valid {name}: {error}", completion) from None

    def _instance(self, data: Any) -> Any:
        return data if self._class is None else instance_of(self._class, data)

    def _read_inside(self, completion: Completion, error: ValueError) -> Completion:
        """The completion with the JSON that is inside its text; `error` says why the whole text is none."""
        found = list(islice(_values_inside(completion.text), MOST_INSIDE + 1))
        flaws = self._flaws(found[:MOST_INSIDE], completion) if found else []
        fitting = [value for value, flaw in zip(found, flaws, strict=False) if flaw is None]
        if len(found) > MOST_INSIDE or len({json.dumps(value, sort_keys=True) for value in fitting}) > 1:
            raise _bad("the answer has more than one JSON value that matches the schema", completion)
        if fitting:
            warnings = (*completion.warnings, "the JSON was read from inside other text")
            return self._with(replace(completion, warnings=warnings), fitting[0])
        if len(found) == 1:
            raise _bad(f"the JSON in the answer does not match the schema: {flaws[0]}", completion)
        raise _bad(f"the answer is not JSON: {error}", completion) from error

    def _flaws(self, values: list[Any], completion: Completion) -> list[str | None]:
        """For each value its first mismatch and the place; None if it matches."""
        try:
            flaws = CHECKER.check(self._schema, values)
        except CheckFailedError as error:
            raise _bad(f"the answer {error}", completion) from error
        if isinstance(flaws, str):
            raise _bad(f"the answer cannot be checked, since the schema cannot be used: {flaws}", completion)
        return flaws


def _values_inside(text: str) -> Iterator[Any]:
    """The objects and lists inside a text that are JSON."""
    for candidate in candidates(text):
        with suppress(ValueError):  # a remark in brackets
            yield _parsed(candidate)


def _parsed(text: str) -> Any:
    """The JSON value in a text; raises ValueError if there is none."""
    value = strict_json.loads(text)
    return strict_json.whole_texts(value) if "\\ud" in text.lower() else value


def _unfenced(text: str) -> str:
    """The text without the ``` that models often put around JSON."""
    head, _, inside = text.strip().partition("\n")
    fenced = head.rstrip() in ("```", "```json") and inside.endswith("```")
    return inside.removesuffix("```") if fenced else text


def _bad(told: str, completion: Completion) -> BadAnswerError:
    error = BadAnswerError(told, kind="bad_schema", partial=completion.text)
    error.cost = completion.cost  # it was paid for and counted already
    return error
