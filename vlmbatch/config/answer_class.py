"""The pydantic class that `schema=` takes in Python. pydantic is only imported for such a class."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from vlmbatch.errors import ConfigError


class AnswerClass(Protocol):
    """The part of a pydantic class (version 2) that is used: its JSON Schema, and instances from JSON."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the class."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Self:
        """The instance with these values; raises pydantic's ValidationError if the class refuses them."""
        ...


if TYPE_CHECKING:  # type checkers have typing_extensions; it may not be installed
    from typing_extensions import TypeVar

    AnswerT = TypeVar("AnswerT", bound=AnswerClass, default=Any)
else:
    from typing import TypeVar

    AnswerT = TypeVar("AnswerT", bound=AnswerClass)
"""The pydantic class of parsed answers; without a class, any type."""
SchemaText: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A JSON Schema: its text, the path of a file with it, or a dict."""
Schema: TypeAlias = SchemaText | type[AnswerClass]
"""A JSON Schema, or a pydantic class."""


def split_schema(schema: object) -> tuple[SchemaText | None, type[AnswerClass] | None]:
    """The value of --schema, and the class of the parsed answers if `schema` is a class.

    Raises:
        ConfigError: `schema` is neither a JSON Schema nor a pydantic class, or pydantic cannot make a JSON
            Schema of the class.
    """
    if schema is None or isinstance(schema, str | os.PathLike | Mapping):
        return schema, None
    if not isinstance(schema, type):
        kind = type(schema).__name__
        if hasattr(schema, "model_json_schema"):
            raise ConfigError(f"schema is an instance of {kind}; give the class itself: schema={kind}")
        raise ConfigError(
            f"schema takes a dict, a text, the path of a file, or a pydantic class, not {kind}; "
            "give one of these"
        )
    if not (hasattr(schema, "model_json_schema") and hasattr(schema, "model_validate_json")):
        raise ConfigError(
            f"schema is the class {schema.__name__}, which is not a class of pydantic 2; derive it from "
            "pydantic.BaseModel of pydantic 2, or give a JSON Schema as a dict"
        )
    return _json_schema(schema), schema


def _json_schema(answer_class: type[AnswerClass]) -> dict[str, Any]:
    """The JSON Schema of the class, in which a set is an array that may have repeated items.

    For a set, pydantic writes uniqueItems. vLLM refuses that, and llama.cpp ignores it. The class turns a
    list with repeated items into a set.
    """
    from pydantic import BaseModel, RootModel

    if answer_class in (BaseModel, RootModel):
        raise ConfigError(
            f"schema is {answer_class.__name__}, the base class of pydantic, which describes no answer; "
            "give a class that you derive from it"
        )
    try:
        return _without_unique_sets(answer_class)
    except Exception as error:
        if not _is_of_pydantic(error):  # code of the user in the class raised it
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"pydantic cannot make a JSON Schema of {answer_class.__name__}: {reason}; change the class, or "
            "give a JSON Schema as a dict"
        ) from error


def _without_unique_sets(answer_class: type[AnswerClass]) -> dict[str, Any]:
    from pydantic import BaseModel
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_core import core_schema

    class Generator(GenerateJsonSchema):
        """pydantic's generator, without uniqueItems for sets."""

        def set_schema(self, schema: core_schema.SetSchema) -> dict[str, Any]:
            """The schema of a set."""
            return _repeatable(super().set_schema(schema))

        def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> dict[str, Any]:
            """The schema of a frozenset."""
            return _repeatable(super().frozenset_schema(schema))

    usual = BaseModel.model_json_schema.__func__  # type: ignore[attr-defined]
    if issubclass(answer_class, BaseModel) and answer_class.model_json_schema.__func__ is usual:  # type: ignore[attr-defined]
        return answer_class.model_json_schema(schema_generator=Generator)
    return answer_class.model_json_schema()  # the class makes its schema itself


def _repeatable(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "uniqueItems"}


def _is_of_pydantic(error: Exception) -> bool:
    """Whether the error comes from pydantic: its class is of pydantic, or code of pydantic raised it."""
    from traceback import walk_tb  # a start without errors does not load it

    *_, (frame, _) = walk_tb(error.__traceback__)
    modules = (type(error).__module__, str(frame.f_globals.get("__name__")))
    return any(module.partition(".")[0] in ("pydantic", "pydantic_core") for module in modules)
