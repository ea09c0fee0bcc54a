"""--schema: the accepted schemas, and the answers that match."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("A cat.", "is not JSON"),
        ('{"animal": "cat"', "is not JSON"),
        ('{"legs": 4}', "'animal' is a required property"),
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
    with pytest.raises(BadAnswerError, match="is not of type 'integer'"):
        read_one(answers[1])
    assert read_one(answers[2]).data == 2


async def test_without_a_schema_nothing_is_parsed(photos: Photos, endpoint: Endpoint) -> None:
    """Without --schema, an answer that happens to be JSON stays text."""
    photos(1)
    endpoint.answer = lambda request: "{}"
    (result,) = (await ran(base_url=endpoint.url, backend="ollama", model="tiny-vision")).results
    assert result.to_record()["data"] is None
    assert result.to_record()["response"] == "{}"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("none.json", "cannot be read"),
        ("{", "is not JSON"),
        ('{"type": "objekt"}', "is not a JSON Schema"),
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
    with pytest.raises(ConfigError, match="must be an object"):
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
