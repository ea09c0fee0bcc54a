"""--schema: the accepted schemas, and the answers that match."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from backend_contract import LITELLM
from endpoint import Endpoint
from running import ran

from vlmbatch.errors import BadAnswerError, ConfigError
from vlmbatch.prompts.schemas import AnswerSchema, schema_text
from vlmbatch.records import Completion

Photos = Callable[..., Path]
SCHEMA = {
    "type": "object",
    "properties": {"animal": {"type": "string"}, "legs": {"type": "integer"}},
    "required": ["animal"],
    "additionalProperties": False,
}
TEXT = json.dumps(SCHEMA)


def read(answer: str) -> Any:
    """The `data` of the record for this answer."""
    return AnswerSchema(TEXT).read(Completion(text=answer, model="m", finish_reason="stop")).data


@pytest.mark.parametrize(
    "answer",
    [
        '{"animal": "cat", "legs": 4}',
        ' \n{"animal": "cat", "legs": 4}\n',
        '```json\n{"animal": "cat", "legs": 4}\n```',
        '```\n{"animal": "cat", "legs": 4}```\n',
    ],
)
def test_a_matching_answer_is_parsed(answer: str) -> None:
    """JSON that matches becomes data, also between the ``` that models often put around it."""
    assert read(answer) == {"animal": "cat", "legs": 4}


GOOD = '{"animal": "cat", "legs": 4}'


@pytest.mark.parametrize(
    "answer",
    [
        f"```JSON\n{GOOD}\n```",
        f"```json {GOOD} ```",
        f"```{GOOD}```",
        f"```json\n{GOOD}",
        f"```json5\n{GOOD}\n```",
        f"~~~json\n{GOOD}\n~~~",
        f"Here is the JSON:\n```json\n{GOOD}\n```",
        f"Here is the JSON: {GOOD}",
        f"{GOOD}\n\nAnything else?",
        f"{GOOD}\n```",
        f"json\n{GOOD}",
        f"<answer>{GOOD}</answer>",
        f"A [note], a {{remark}} and a smiley :{{ or :[ come first: {GOOD} (see [1])",
        f"It's 5\" wide. {GOOD} It's so.",
        f'First {GOOD}, and once more:\n{{\n  "legs": 4, "animal": "cat"\n}}',
        f'Not {{"legs": 4}} but {GOOD}, and not {{"animal": 5}}.',
    ],
)
def test_json_inside_other_text_is_read(answer: str) -> None:
    """The only object that matches is the answer, whatever text is around it; a warning says so."""
    done = AnswerSchema(TEXT).read(Completion(text=answer, model="m", finish_reason="stop", warnings=("a",)))
    assert done.data == {"animal": "cat", "legs": 4}
    assert done.warnings == ("a", "the JSON was read from inside other text")
    assert done.text == answer


def test_a_list_inside_other_text_is_read() -> None:
    """A list that matches is the answer, and objects in it are not read on their own."""
    schema = AnswerSchema('{"type": "array", "items": {"type": "object"}}')
    done = schema.read(Completion(text='Here: [{"a": "]"}, {"b": "\\"}"}]', model="m", finish_reason="stop"))
    assert done.data == [{"a": "]"}, {"b": '"}'}]


@pytest.mark.parametrize(
    ("schema", "answer", "told"),
    [
        ("{}", 'Either {"a": 1} or {"a": 2}.', "more than one"),
        ("{}", 'Either {"a": 1} or {"a": true}.', "more than one"),
        ("{}", "[1] " * 100, "more than one"),
        (TEXT, 'Here: {"legs": 4}', 'the JSON in the answer does not match the schema: .*"animal"'),
        (TEXT, 'Either {"legs": 4} or {"legs": 5}', "is not JSON"),
        ('{"type": "string"}', 'It is a "cat".', "is not JSON"),
        ('{"type": "number"}', "There are 4 cats.", "is not JSON"),
        ('{"type": "string"}', '```json\n"cat"', "is not JSON"),
        ('{"type": "object"}', 'Here: {"a": {"b": 1}, "c": ', "is not JSON"),
        ('{"type": "object"}', '```json\n{"a": [{"b": 1}, {"c": 2}', "is not JSON"),
        ('{"type": "object"}', "Here: {'a': {\"b\": 1}}", "is not JSON"),
        ('{"type": "object"}', 'Here: {"a" {"b": 1}}', "is not JSON"),
        ('{"type": "object"}', '[{"b": 1}, oh', "is not JSON"),
        ('{"type": "object"}', 'Here: {"a": 1e999}', "is not JSON"),
    ],
)
def test_text_without_one_matching_value_is_bad(schema: str, answer: str, told: str) -> None:
    """Two values that match, none, a part of a value that was cut, and a word of a sentence are no answer."""
    with pytest.raises(BadAnswerError, match=told) as caught:
        AnswerSchema(schema).read(Completion(text=answer, model="m", finish_reason="stop"))
    assert (caught.value.kind, caught.value.partial) == ("bad_schema", answer)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        "[" * 100_000,
        '{"a":' * 20_000,
        "{}" * 50_000,
        "{ x" * 30_000,
        "[1, " * 25_000,
        '["' * 50_000,
        '{"' + '\\"' * 50_000,
        '{"' + "\\" * 99_999,
        "```\n" + "\n" * 100_000 + "x",
        "```json" + " " * 100_000 + "x",
        "[" + " " * 100_000,
        "}" * 100_000,
        "{]" * 50_000,
    ],
)
def test_hostile_text_is_read_once(text: str) -> None:
    """100 kB of brackets, quotes or blanks are a bad answer at once."""
    with pytest.raises(BadAnswerError):
        AnswerSchema('{"type": "string"}').read(Completion(text=text, model="m", finish_reason="stop"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("A cat.", "is not JSON"),
        ('{"animal": "cat"', "is not JSON"),
        ('{"legs": 4}', '"animal" is a required property'),
        ('{"animal": "cat", "legs": "four"}', r"\$\.legs"),
        ('{"animal": "cat", "colour": "grey"}', "colour"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_an_answer_that_does_not_match(answer: str, told: str) -> None:
    """An answer that does not match is a BadAnswerError that names the place and contains the answer."""
    with pytest.raises(BadAnswerError, match=told) as caught:
        read(answer)
    assert (caught.value.kind, caught.value.partial) == ("bad_schema", answer)


def test_one_reader_reads_all_answers() -> None:
    """An answer that does not match leaves no trace for the next ones."""
    read_one = AnswerSchema('{"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}').read
    answers = [Completion(text=text, model="m", finish_reason="stop") for text in ("1", '"one"', "2")]
    assert read_one(answers[0]).data == 1
    with pytest.raises(BadAnswerError, match='is not of type "integer"'):
        read_one(answers[1])
    assert read_one(answers[2]).data == 2


async def test_without_a_schema_nothing_is_parsed(photos: Photos, endpoint: Endpoint) -> None:
    """Without --schema, an answer that happens to be JSON stays text."""
    photos(1)
    endpoint.answer = lambda request: "{}"
    (result,) = (await ran(base_url=endpoint.url, backend="ollama", model="tiny-vision")).results
    assert result.to_record()["data"] is None
    assert result.to_record()["response"] == "{}"


class Anything(pydantic.RootModel[Any]):
    """A class that takes every answer."""


@pytest.mark.parametrize(
    ("typed", "answer_class", "name"),
    [
        ("none.json", None, "--schema none.json cannot be read"),
        ('{"$ref": "#"}', None, '--schema {"$ref": "#"} refers to itself'),
        (
            '{"title": "Anything"}',
            Anything,
            "the schema of Anything accepts every answer: .*; give the class a field",
        ),
    ],
)
def test_messages_name_a_schema_as_it_was_given(typed: str, answer_class: Any, name: str) -> None:
    """A message shows the name of the class, or --schema with the file or the start of the schema."""
    with pytest.raises(ConfigError, match=f"^{re.escape(name)}" if answer_class is None else f"^{name}$"):
        schema_text(typed, answer_class)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("none.json", "cannot be read"),
        ("{", "is not JSON"),
        ('{"type": "objekt"}', "is not a JSON Schema"),
        ('{"date": "string", "title": "string"}', 'accepts every answer: .* write {"type": "object", "prop'),
        ('{"$ref": "https://example.org/s.json"}', "refers to https://example.org"),
        ('{"properties": {"a": {"$ref": "other.json#/x"}}}', "refers to other.json"),
    ],
)
def test_an_unusable_schema_is_refused(typed: str, told: str) -> None:
    """An unusable schema is a ConfigError, and no reference in it is fetched."""
    with pytest.raises(ConfigError, match=told):
        schema_text(typed)


def test_a_file_holds_the_schema(tmp_path: Path) -> None:
    """A file gives the same schema as its content, and must contain an object."""
    file = tmp_path / "s.json"
    file.write_text(TEXT)
    assert schema_text(str(file)) == schema_text(TEXT)
    file.write_text("[]")
    with pytest.raises(ConfigError, match="is not a JSON Schema, since it is not an object; write "):
        schema_text(str(file))


@pytest.mark.parametrize("backend", ["ollama", "vllm", "litellm"])
async def test_a_run_sends_the_schema_and_records_the_data(
    photos: Photos, endpoint: Endpoint, backend: str
) -> None:
    """Each wire sends the schema, but not with canaries; an answer that does not match is retried."""
    photos(3)
    answers = iter(['{"animal": 4}'])
    endpoint.answer = lambda request: next(answers, '{"animal": "cat"}')
    place = {"litellm": {"base_url": endpoint.url + LITELLM.path, "model": "openai/tiny-vision"}}
    options = place.get(backend, {"base_url": endpoint.url, "model": "tiny-vision"})
    done = await ran(backend=backend, **options, schema=TEXT)
    records = [result.to_record() for result in done.results]
    assert [record["data"] for record in records] == [{"animal": "cat"}] * 3
    assert [json.loads(record["response"]) for record in records] == [{"animal": "cat"}] * 3
    assert sorted(record["attempts"] for record in records) == [1, 1, 2]
    for question in endpoint.questions:
        body = question.body
        sent = body["format"] if backend == "ollama" else body["response_format"]["json_schema"]["schema"]
        assert sent == SCHEMA
    assert not [c for c in endpoint.canaries if "format" in c.body or "response_format" in c.body]


async def test_an_answer_that_never_matches_is_a_failure(photos: Photos, endpoint: Endpoint) -> None:
    """After three answers that do not match, the image fails permanently, and keeps the last answer."""
    photos(1)
    endpoint.answer = lambda request: "A cat."
    done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", schema=TEXT)
    (result,) = done.results
    assert result.failure is not None
    assert (result.failure.kind, result.failure.partial) == ("bad_schema", "A cat.")
    assert result.attempts == 3


async def test_the_schema_is_part_of_the_fingerprint(photos: Photos, endpoint: Endpoint) -> None:
    """Records of different schemas are not mixed; the spelling of a schema does not matter."""
    photos(1)
    endpoint.answer = lambda request: '{"animal": "cat"}'
    options = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision", "output": "out.jsonl"}
    await ran(**options, schema=TEXT)
    again = await ran(**options, schema=json.dumps(SCHEMA, indent=4))
    assert (again.error, again.results) == (None, [])
    other = await ran(**options, schema='{"type": "object"}')
    assert isinstance(other.error, ConfigError)
    assert "schema" in str(other.error)
