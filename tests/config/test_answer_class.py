"""A pydantic class as the schema: its JSON Schema in the options, and the classes that are refused."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pydantic
import pydantic.v1
import pytest

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError


class Animal(pydantic.BaseModel):
    """The answer about a photo."""

    name: str
    legs: int = 4
    colour: str


class Old(pydantic.v1.BaseModel):
    """A class of pydantic 1."""

    name: str


class Caller(pydantic.BaseModel):
    """A class with a field that has no form in JSON."""

    call: Callable[[int], int]


class Unfinished(pydantic.BaseModel):
    """A class with a field whose type is not defined."""

    part: "Missing"  # type: ignore[name-defined]  # noqa: F821


class Endless(pydantic.RootModel["Endless"]):
    """A class that consists of itself; pydantic raises a LookupError about it."""


@dataclasses.dataclass
class Plain:
    """A class of another kind."""

    name: str


def test_a_class_is_its_json_schema() -> None:
    """The option holds the JSON Schema of the class, with the fields in their order."""
    config = RunConfig.of("photos", schema=Animal)
    assert config.answer_class is Animal
    schema = json.loads(config.generation.schema or "")
    assert schema == Animal.model_json_schema()
    assert list(schema["properties"]) == ["name", "legs", "colour"]


class Bag(pydantic.BaseModel):
    """A class with sets, one of them deep inside, and with the name of the keyword in other places."""

    uniqueItems: bool
    names: list[str] = pydantic.Field(json_schema_extra={"uniqueItems": True})
    options: dict[str, Any] = {"type": "array", "uniqueItems": True}
    numbers: set[int]
    groups: dict[str, list[frozenset[str]]] = {}


def test_a_set_is_a_list_in_the_json_schema() -> None:
    """The JSON Schema of a class demands unique items of no set; all else is as pydantic makes it."""
    schema = json.loads(RunConfig.of("photos", schema=Bag).generation.schema or "")
    numbers, groups = schema["properties"]["numbers"], schema["properties"]["groups"]
    assert numbers == {"items": {"type": "integer"}, "title": "Numbers", "type": "array"}
    assert groups["additionalProperties"]["items"] == {"items": {"type": "string"}, "type": "array"}
    numbers["uniqueItems"] = groups["additionalProperties"]["items"]["uniqueItems"] = True
    assert schema == Bag.model_json_schema()


class Own(pydantic.BaseModel):
    """A class that makes its JSON Schema itself."""

    name: str

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:  # type: ignore[override]
        """The schema."""
        return {"type": "object", "required": ["name"]}


def test_a_class_may_make_its_schema_itself() -> None:
    """A class with its own `model_json_schema` is sent with that schema."""
    schema = RunConfig.of("photos", schema=Own).generation.schema
    assert json.loads(schema or "") == {"type": "object", "required": ["name"]}


def test_a_question_replaces_the_class_of_the_session() -> None:
    """A question without a schema has that of the session; another schema also replaces the class."""
    session = RunConfig.of_session(schema=Animal)
    assert session.for_question(prompt="hi").answer_class is Animal
    other = session.for_question(schema={"type": "object"})
    assert (other.answer_class, other.generation.schema) == (None, '{"type": "object"}')
    assert other.for_question(schema=Animal) == session


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (Animal(name="cat", colour="grey"), "is an instance of Animal; give the class itself: schema=Animal"),
        (Old, "the class Old, which is not a class of pydantic 2; derive it from"),
        (Plain, "the class Plain, which is not a class of pydantic 2; derive it from"),
        (Caller, "cannot make a JSON Schema of Caller: .*CallableSchema; change the class, or give"),
        (Unfinished, "cannot make a JSON Schema of Unfinished: .* not fully defined.*; change the class"),
        (Endless, "cannot make a JSON Schema of Endless: .*; change the class, or give"),
        (
            pydantic.BaseModel,
            "schema is BaseModel, the base class of pydantic, .*; give a class that you derive from it",
        ),
        (
            pydantic.RootModel,
            "schema is RootModel, the base class of pydantic, .*; give a class that you derive from it",
        ),
        (3, "takes a dict, a text, the path of a file, or a pydantic class, not int"),
        (list[Animal], "takes a dict, a text, the path of a file, or a pydantic class, not GenericAlias"),
    ],
)
def test_what_is_no_schema_is_refused(schema: Any, told: str) -> None:
    """Everything else in place of a schema is a ConfigError in one line that says what to give."""
    with pytest.raises(ConfigError, match=told) as raised:
        RunConfig.of("photos", schema=schema)
    assert "\n" not in str(raised.value)


def test_an_error_in_the_users_own_class_is_not_hidden() -> None:
    """An exception that the class raises while it makes its schema is passed on unchanged."""

    class Broken(pydantic.BaseModel):
        name: str

        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        RunConfig.of("photos", schema=Broken)
