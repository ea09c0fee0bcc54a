"""Answers as instances of a pydantic class, in runs and sessions, new ones and reused ones."""

import datetime
import enum
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from endpoint import Endpoint

from vlmbatch import ImageFailed, RunConfig, open_session, run_batch
from vlmbatch.config.answer_class import SchemaText
from vlmbatch.errors import BadAnswerError
from vlmbatch.prompts.schemas import AnswerSchema, schema_text
from vlmbatch.records import Completion

Photos = Callable[..., Path]
CAT = '{"name": "cat", "legs": 4}'


class Animal(pydantic.BaseModel):
    """The answer about a photo; its JSON Schema does not say that legs come in pairs."""

    name: str
    legs: int

    @pydantic.field_validator("legs")
    @classmethod
    def _even(cls, legs: int) -> int:
        if legs == 13:
            raise ZeroDivisionError("thirteen")
        if legs % 2:
            raise ValueError("legs come in pairs")
        return legs


PLAIN = Animal.model_json_schema()


@pytest.fixture
def asked(endpoint: Endpoint) -> dict[str, Any]:
    """The options of a run or session at an endpoint that answers with a cat."""
    endpoint.answer = lambda request: CAT
    return {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}


def read(answer: str, answer_class: type[pydantic.BaseModel]) -> Any:
    """The parsed answer."""
    schema = AnswerSchema(schema_text(json.dumps(answer_class.model_json_schema())) or "", answer_class)
    return schema.read(Completion(text=answer, model="m", finish_reason="stop")).parsed


def test_an_answer_is_an_instance(photos: Photos, endpoint: Endpoint, asked: dict[str, Any]) -> None:
    """With a class, `parsed` is an instance; record, `run` and request are those of its JSON Schema."""
    photos(1)
    kinds: tuple[SchemaText | type[Animal], ...] = (Animal, PLAIN)
    (with_class,), (with_dict,) = ([*run_batch("photos", **asked, schema=schema)] for schema in kinds)
    assert with_class.parsed == Animal(name="cat", legs=4)
    assert with_dict.parsed == json.loads(CAT)
    records = [result.to_record() for result in (with_class, with_dict)]
    assert [record["data"] for record in records] == [json.loads(CAT)] * 2
    assert records[0]["run"] == records[1]["run"]
    formats = [json.dumps(request.body["format"]) for request in endpoint.questions]
    assert formats == [json.dumps(PLAIN)] * 2


def test_without_a_schema_nothing_is_parsed(photos: Photos, asked: dict[str, Any]) -> None:
    """Without a schema `parsed` is None, also if the answer is JSON."""
    photos(1)
    (result,) = run_batch("photos", **asked)
    assert (result.parsed, result.text) == (None, CAT)


def test_a_class_may_refuse_an_answer(photos: Photos, endpoint: Endpoint, asked: dict[str, Any]) -> None:
    """An answer that the validators refuse is asked for again; then the result is a failure in one line."""
    photos(1)
    answers = iter(['{"name": "cat", "legs": 3}', CAT])
    endpoint.answer = lambda request: next(answers, '{"name": "S3cret", "legs": 5}')
    (result,) = run_batch("photos", **asked, schema=Animal)
    assert result.parsed == Animal(name="cat", legs=4)
    assert result.warnings == ("retried with seed 1 and temperature 0.2: bad_schema",)
    (failed,) = run_batch("photos", **asked, schema=Animal)
    assert failed.failure is not None
    assert failed.failure.kind == "bad_schema"
    assert failed.error == "the answer is not a valid Animal: $.legs: Value error, legs come in pairs"
    assert failed.parsed is failed.text is None
    with pytest.raises(ImageFailed, match=r"p0000.jpg: the answer is not a valid Animal"):
        failed.raise_for_failure()


def test_an_error_in_a_validator_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An exception of the class that is no ValidationError ends the run, and is raised unchanged."""
    photos(9)
    endpoint.answer = lambda request: '{"name": "cat", "legs": 13}'
    heard: list[Any] = []
    with pytest.raises(ZeroDivisionError, match="thirteen") as raised:
        list(run_batch("photos", **asked, schema=Animal, concurrency=1, observers=[heard.append]))
    assert raised.traceback[-1].name == "_even", "the last line of the traceback is the user's"
    assert len(endpoint.questions) < 9
    assert not [event for event in heard if "bug" in str(event)]


def test_an_error_in_a_validator_ends_only_its_call(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """In a session the caller gets that exception, and the next call gets its answer."""
    photos(2)
    with open_session(**asked, concurrency=1) as session:
        question = session.question(schema=Animal)
        endpoint.answer = lambda request: '{"name": "cat", "legs": 13}'
        with pytest.raises(ZeroDivisionError, match="thirteen"):
            session.answer("photos/p0000.jpg", question)
        endpoint.answer = lambda request: CAT
        assert session.answer("photos/p0001.jpg", question).parsed == Animal(name="cat", legs=4)


@pytest.mark.parametrize("output", ["-", "o.jsonl"])
def test_the_answer_of_a_duplicate_is_parsed(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], output: str
) -> None:
    """Identical images share a request, and each has an instance of its own."""
    folder = photos(1)
    shutil.copy(folder / "p0000.jpg", folder / "copy.jpg")
    first, second = run_batch("photos", **asked, schema=Animal, output=output)
    assert len(endpoint.questions) == 1
    assert first.parsed == second.parsed == Animal(name="cat", legs=4)
    assert first.parsed is not second.parsed


def test_an_answer_of_an_earlier_run_is_parsed(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A new image with the content of an earlier record gets the record's answer as an instance."""
    folder = photos(1)
    list(run_batch("photos", **asked, schema=PLAIN, output="o.jsonl"))
    shutil.copy(folder / "p0000.jpg", folder / "copy.jpg")
    (again,) = run_batch("photos", **asked, schema=Animal, output="o.jsonl")
    assert len(endpoint.questions) == 1
    assert again.duplicate_of == "photos/p0000.jpg"
    assert again.parsed == Animal(name="cat", legs=4)


@pytest.mark.parametrize(("stored", "requests"), [(CAT, 1), ('{"name": "cat", "legs": 3}', 2)])
def test_a_cached_answer_is_parsed_or_asked_again(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], stored: str, requests: int
) -> None:
    """An answer in the cache becomes an instance; one that the class refuses is not used."""
    photos(1)
    endpoint.answer = lambda request: stored
    list(run_batch("photos", **asked, schema=PLAIN, cache="cache"))
    endpoint.answer = lambda request: CAT
    (result,) = run_batch("photos", **asked, schema=Animal, cache="cache")
    assert result.parsed == Animal(name="cat", legs=4)
    assert (len(endpoint.questions), result.cached) == (requests, requests == 1)


def test_an_error_in_a_validator_at_a_cached_answer_ends_the_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """The user's exception is also raised if the answer is a stored one."""
    photos(1)
    endpoint.answer = lambda request: '{"name": "cat", "legs": 13}'
    list(run_batch("photos", **asked, schema=PLAIN, cache="cache"))
    with pytest.raises(ZeroDivisionError, match="thirteen"):
        list(run_batch("photos", **asked, schema=Animal, cache="cache"))
    assert len(endpoint.questions) == 1


def test_questions_with_the_same_schema_keep_their_classes(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """In one session, a class and a dict with the same schema share a request, but no parsed answer."""
    photos(1)
    with open_session(**asked, schema=Animal) as session:
        questions = (session.question(), session.question(schema=PLAIN), session.question(schema=Animal))
        parsed = [session.answer("photos/p0000.jpg", question).parsed for question in questions]
    assert parsed == [Animal(name="cat", legs=4), json.loads(CAT), Animal(name="cat", legs=4)]
    assert len(endpoint.questions) == 1


def test_a_config_takes_a_schema(photos: Photos, asked: dict[str, Any]) -> None:
    """A call may have a config and a schema; the schema replaces that of the config."""
    photos(1)
    config = RunConfig.of("photos", **asked, schema={"type": "object"})
    (result,) = run_batch(config=config, schema=Animal)
    assert result.parsed == Animal(name="cat", legs=4)


class Kind(enum.Enum):
    """A kind of animal."""

    CAT = "cat"


class Strict(pydantic.BaseModel):
    """A class that converts nothing."""

    model_config = pydantic.ConfigDict(strict=True)
    kind: Kind
    born: datetime.date
    tags: set[str] = set()


def test_a_strict_class_reads_json() -> None:
    """A strict class gets its dates, sets and enumerations from the texts and lists of JSON."""
    parsed = read('{"kind": "cat", "born": "2020-02-29", "tags": ["a"]}', Strict)
    assert parsed == Strict(kind=Kind.CAT, born=datetime.date(2020, 2, 29), tags={"a"})


class Palette(pydantic.BaseModel):
    """A class with a set of at least two colours."""

    colours: set[str] = pydantic.Field(min_length=2)


@pytest.mark.parametrize(
    ("answer", "colours", "error"),
    [
        ('{"colours": ["red", "blue", "red"]}', {"red", "blue"}, None),
        (
            '{"colours": ["red", "red"]}',
            None,
            "the answer is not a valid Palette: $.colours: Set should have",
        ),
    ],
)
def test_a_set_takes_a_list_with_repeats(
    answer: str,
    colours: set[str] | None,
    error: str | None,
    photos: Photos,
    endpoint: Endpoint,
    asked: dict[str, Any],
) -> None:
    """An answer may repeat the items of a set; the class alone decides how many different ones it needs."""
    photos(1)
    endpoint.answer = lambda request: answer
    (result,) = run_batch("photos", **asked, schema=Palette)
    assert (result.parsed and result.parsed.colours) == colours
    assert (result.error or "").startswith(error or "")
    assert (result.error is None) == (error is None)
    assert "uniqueItems" not in json.dumps(endpoint.questions[0].body)


def test_a_list_of_instances() -> None:
    """A RootModel reads an answer that is a list."""
    animals = read(f"[{CAT}]", pydantic.RootModel[list[Animal]])
    assert animals.root == [Animal(name="cat", legs=4)]


def test_a_refusal_is_one_short_line() -> None:
    """However long or odd the reason of a validator is, the message is one short line that can be printed."""

    class Noisy(pydantic.BaseModel):
        name: str

        @pydantic.field_validator("name")
        @classmethod
        def _refuse(cls, name: str) -> str:
            raise ValueError("a\n\x1b[31m" + "b" * 10_000)

    with pytest.raises(BadAnswerError) as raised:
        read('{"name": "S3cret"}', Noisy)
    told = str(raised.value)
    assert told.isprintable()
    assert len(told) < 300
    assert "S3cret" not in told
    assert raised.value.__cause__ is None
