"""What a user gives arrives at the engine as it was written: order, line breaks, blanks and numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, question
from command import run
from endpoint import Endpoint
from running import ran

from vlmbatch.backends.ollama.options import own_options
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError
from vlmbatch.prompts.schemas import schema_text

Photos = Callable[..., Path]
SCHEMA = (
    '{"type": "object", "required": ["why", "animal"], "properties": {"why": {"type": "string"},'
    ' "animal": {"maxLength": 9, "enum": ["zebra", "cat"]},'
    ' "Legs \\u00e9": {"maximum": 4.0, "minimum": 1e-7}},'
    ' "$schema": "https://json-schema.org/draft/2020-12/schema", "additionalProperties": false}'
)
PROMPT = "  Zwei Zeilen\r\nund\tUnicode: \u00e9e\u0301 \U0001f431\u2028\r\n\r\n"
OPTIONS = ('stop=["z", "a"]', "mirostat_eta=1e-7", "top_k=5")
EXTRA = '{"z": 1, "temperature": 0.50, "a": {"y": [3, 1, 2], "x": null, "m": 1e-7, "b": 1.0}}'


def text_of(value: object) -> str:
    """The JSON text, which shows the order of keys and whether a number is whole."""
    return json.dumps(value)


def asked(kind: str, url: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", kind, "--base-url", url, "-m", "tiny-vision", "-o", "o.jsonl")


def prompt_file() -> str:
    Path("prompt.txt").write_bytes((PROMPT + "\r\n").encode())
    return "prompt.txt"


def test_everything_arrives_at_ollama_as_written(photos: Photos, endpoint: Endpoint) -> None:
    """Prompt, system message, schema and options reach Ollama's API in their order and characters."""
    photos(1)
    endpoint.answer = lambda request: '{"why": "stripes", "animal": "zebra"}'
    Path("schema.json").write_bytes(SCHEMA.replace(", ", ",\r\n").encode("utf-8-sig"))
    given = [word for option in OPTIONS for word in ("--option", option)]
    given += ["--prompt-file", prompt_file(), "--system", " Short.\n", "--schema", "schema.json"]
    done = run(*asked("ollama", endpoint.url), *given)
    assert done.returncode == 0, done.stderr
    (body,) = [question.body for question in endpoint.questions]
    assert text_of(body["format"]) == text_of(json.loads(SCHEMA))
    assert [message["content"] for message in body["messages"]] == [" Short.\n", PROMPT]
    assert text_of(body["options"]).startswith('{"stop": ["z", "a"], "mirostat_eta": 1e-07, "top_k": 5')


def test_everything_arrives_at_an_openai_server_as_written(photos: Photos, endpoint: Endpoint) -> None:
    """Prompt, system message, schema and extra arguments reach OpenAI's API in their order and characters."""
    photos(1)
    endpoint.answer = lambda request: '{"why": "stripes", "animal": "zebra"}'
    given = ["-p", PROMPT, "--system", " Short.\n", "--schema", SCHEMA, "--extra-body", EXTRA]
    processor = '{"size": {"shortest_edge": 1, "longest_edge": 2}, "max_pixels": 3}'
    done = run(*asked("vllm", endpoint.url), *given, "--mm-processor-kwargs", processor)
    assert done.returncode == 0, done.stderr
    (body,) = [question.body for question in endpoint.questions]
    assert text_of(body["response_format"]["json_schema"]["schema"]) == text_of(json.loads(SCHEMA))
    assert body["messages"][0]["content"] == " Short.\n"
    assert body["messages"][1]["content"][0]["text"] == PROMPT
    assert text_of(body).endswith(f', "mm_processor_kwargs": {processor}, {text_of(json.loads(EXTRA))[1:]}')


async def test_a_table_in_the_configuration_keeps_its_order(photos: Photos, endpoint: Endpoint) -> None:
    """Tables of vlmbatch.toml and mappings of Python keep the order of their keys."""
    async with KINDS["vllm"].open(endpoint.url, extra_body={"z": {"b": 1, "a": 2}, "y": 3}) as backend:
        await backend.complete(question())
    assert text_of(endpoint.questions[0].body).endswith('"z": {"b": 1, "a": 2}, "y": 3}')
    photos(1)
    endpoint.answer = lambda request: '{"why": "stripes", "animal": "zebra"}'
    Path("vlmbatch.toml").write_text(
        f"schema = '''{SCHEMA}'''\nextra-body = {{ z = 1, a = {{ y = 2, x = 1 }} }}\n"
    )
    done = run(*asked("vllm", endpoint.url), "--config", "vlmbatch.toml")
    assert done.returncode == 0, done.stderr
    body = endpoint.questions[-1].body
    assert text_of(body["response_format"]["json_schema"]["schema"]) == text_of(json.loads(SCHEMA))
    assert text_of(body).endswith('"z": 1, "a": {"y": 2, "x": 1}}')


async def test_litellm_keeps_the_order_of_a_schema(photos: Photos, endpoint: Endpoint) -> None:
    """The schema keeps its order on the way through LiteLLM."""
    photos(1)
    endpoint.answer = lambda request: '{"why": "stripes", "animal": "zebra"}'
    options = {"backend": "litellm", "model": "openai/tiny-vision", "base_url": f"{endpoint.url}/v1"}
    done = await ran(**options, schema=SCHEMA, prompt=PROMPT)
    assert done.error is None
    (body,) = [question.body for question in endpoint.questions]
    assert text_of(body["response_format"]["json_schema"]["schema"]) == text_of(json.loads(SCHEMA))
    assert body["messages"][0]["content"][0]["text"] == PROMPT


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 400])
def test_a_number_that_json_lacks_is_refused(number: str) -> None:
    """NaN and infinite numbers in an option, an extra argument or a schema are errors that name the flag."""
    for option in ("extra_body", "mm_processor_kwargs"):
        with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}: .*number"):
            RunConfig.of("photos", **{option: f'{{"a": [{number}]}}'})
    with pytest.raises(ConfigError, match=r"--schema .* is not JSON: .*number"):
        schema_text(f'{{"maximum": {number}}}')
    with pytest.raises(ConfigError, match=r"--option min_p: .*number"):
        own_options((f"min_p={number}",), None)


def test_a_key_that_is_written_twice_is_refused() -> None:
    """A key that appears twice in one object is an error that names the flag and the key."""
    twice = '{"type": "object", "properties": {"a": {}, "b": {}, "a": {}}}'
    with pytest.raises(ConfigError, match=r'--extra-body: .*"a" appears twice'):
        RunConfig.of("photos", extra_body=twice)
    with pytest.raises(ConfigError, match=r'--schema .*"a" appears twice'):
        schema_text(twice)
    with pytest.raises(ConfigError, match=r'--option x: .*"a" appears twice'):
        own_options((f"x={twice}",), None)


@pytest.mark.parametrize("value", ["[" * 100_000, '{"a":' * 300 + "1" + "}" * 300])
def test_an_option_without_end_is_refused(value: str) -> None:
    """An option that is nested too deeply is an error with its name, and no traceback."""
    with pytest.raises(ConfigError, match="--option x: it is nested more than 200 levels"):
        own_options((f"x={value}",), None)


def test_an_option_may_be_a_text_that_looks_like_a_number() -> None:
    """A text in the quotes of JSON stays a text."""
    given: dict[str, Any] = own_options(('stop="NaN"', "numa=nan or so"), None)
    assert given == {"stop": "NaN", "numa": "nan or so"}
