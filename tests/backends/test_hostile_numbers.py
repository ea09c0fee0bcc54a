"""Numbers and texts that JSON does not have: whatever a server or a model writes, a record is strict JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, babbling, question, reply
from command import records, run
from endpoint import Endpoint, Received
from hypothesis import given
from hypothesis import strategies as st
from written_results import answered

from vlmbatch.backends.logprobs import ODD
from vlmbatch.backends.values import count, number, string
from vlmbatch.cache import Cache
from vlmbatch.endpoints.cost import Prices
from vlmbatch.errors import BadAnswerError, ConfigError
from vlmbatch.prompts.schemas import AnswerSchema
from vlmbatch.records import Completion, Result, to_line
from vlmbatch.writers.line_parser import parse

Photos = Callable[..., Path]
ODD_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "1" + "0" * 4200, "9" * 5000)
SCHEMA = '{"type": "object", "required": ["data"]}'


def strictly(line: str | bytes) -> Any:
    """The value of a strict JSON text: no NaN, no infinity, no half character."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value = json.loads(line, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def record_of(done: Completion) -> Any:
    """The record of this answer, as a strict reader has it."""
    result: Result = replace(answered("a.jpg"), completion=done, cost=done.cost)
    return strictly(to_line(result.to_record()))


@pytest.mark.parametrize("digits", ODD_NUMBERS)
@pytest.mark.parametrize("name", ["ollama", "openai", "openrouter"])
async def test_odd_numbers_of_a_server_are_no_numbers(name: str, digits: str) -> None:
    """Counts, times, costs and logprobs that JSON cannot have, or no server measures, are missing."""
    tokens = '[{"token": "a", "logprob": #, "top_logprobs": [{"token": "a", "logprob": #}]}]'
    raw = (
        '{"message": {"content": "a"}, "done": true, "done_reason": "stop", "prompt_eval_count": #,'
        ' "eval_count": #, "load_duration": #, "eval_duration": #, "prompt_eval_duration": #,'
        f' "logprobs": {tokens}, "timings": {{"prompt_ms": #, "predicted_ms": #}},'
        f' "choices": [{{"message": {{"content": "a"}}, "finish_reason": "stop",'
        f' "logprobs": {{"content": {tokens}}}}}],'
        ' "usage": {"prompt_tokens": #, "completion_tokens": #, "cost": #}}'
    ).replace("#", digits)
    async with babbling(reply(raw.encode())) as url, KINDS[name].open(url, api_key="k" * 9) as backend:
        done = await backend.complete(question(logprobs=1))
    record = record_of(done)
    assert record["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert record["logprobs"]["mean"] == -9999.0
    assert (done.cost, done.busy_s, done.load_s) == (None, 0.0, 0.0)
    told = {"ollama": ["prompt_eval_count", "eval_count"]}.get(
        name, ["prompt_tokens", "completion_tokens", "cost"]
    )
    odd = [f"the endpoint sent no usable number for {each}" for each in told]
    assert list(done.warnings) == odd + ([] if digits in ("-Infinity", "-1e999") else [ODD])


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_numbers_that_are_texts_are_numbers(name: str) -> None:
    """A server that writes its numbers as texts is understood."""
    told = {
        "message": {"content": "a"},
        "done": True,
        "prompt_eval_count": "220",
        "eval_count": " 4 ",
        "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": "220", "completion_tokens": "4.0", "cost": "0.0025"},
    }
    async with babbling(reply(told)) as url, KINDS[name].open(url) as backend:
        done = await backend.complete(question())
    assert (done.usage.input_tokens, done.usage.output_tokens) == (220, 4)
    assert done.cost == (0.0025 if name == "openai" else None)


@pytest.mark.parametrize(
    ("cost", "counted"), [(-1, None), ("-0.5", None), (True, None), (0, 0.0), ("2e-3", 0.002)]
)
async def test_a_cost_is_not_negative(cost: object, counted: float | None) -> None:
    """A cost below zero, or one that is no number, is unknown, so that it cannot raise a budget."""
    told = {
        "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": cost},
    }
    async with babbling(reply(told)) as url, KINDS["openrouter"].open(url, api_key="k" * 9) as backend:
        done = await backend.complete(question())
    assert (done.cost, done.owes_cost) == (counted, counted is None)


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_half_characters_of_a_server_do_not_reach_a_record(name: str) -> None:
    """A surrogate that is alone becomes U+FFFD in every text, and a pair becomes its character."""
    text = "a \ud83d b \ud83d\udc31"
    token = {"token": "\ud83d", "logprob": -1, "top_logprobs": [{"token": "\udc31", "logprob": -1}]}
    told = {
        "model": text,
        "message": {"content": text},
        "done": True,
        "done_reason": "stop",
        "logprobs": [token],
        "choices": [
            {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": [token]}}
        ],
    }
    async with babbling(reply(told)) as url, KINDS[name].open(url) as backend:
        record = record_of(await backend.complete(question(logprobs=1)))
    assert record["response"] == record["model"] == "a \ufffd b \U0001f431"
    assert record["logprobs"]["tokens"][0]["token"] == "\ufffd"


@pytest.mark.parametrize("digits", ODD_NUMBERS)
@pytest.mark.parametrize("template", ['{"data": #}', '```json\n{"data": [1, {"x": #}]}\n```', "#"])
def test_an_answer_with_such_a_number_is_a_bad_answer(template: str, digits: str) -> None:
    """An answer with a number that JSON does not have is bad_schema, and the message says so."""
    text = template.replace("#", digits)
    with pytest.raises(BadAnswerError, match="is not JSON: ") as caught:
        AnswerSchema("{}").read(Completion(text=text, model="m", finish_reason="stop"))
    assert (caught.value.kind, caught.value.partial) == ("bad_schema", text)


def test_half_characters_of_an_answer_do_not_reach_its_data() -> None:
    """A surrogate that an answer writes as an escape is U+FFFD in the data."""
    done = AnswerSchema("{}").read(
        Completion(text=r'{"\uD83D": ["a\udc31", "\ud83d\udc31"]}', model="m", finish_reason="stop")
    )
    assert record_of(done)["data"] == {"\ufffd": ["a\ufffd", "\U0001f431"]}


def test_a_deep_answer_is_a_bad_answer() -> None:
    """An answer that is nested more deeply than it can be read is bad_schema."""
    with pytest.raises(BadAnswerError, match="nested") as caught:
        AnswerSchema("{}").read(Completion(text="[" * 5000 + "]" * 5000, model="m", finish_reason="stop"))
    assert caught.value.kind == "bad_schema"


def test_a_run_writes_strict_json(photos: Photos, endpoint: Endpoint) -> None:
    """An answer with an infinite number is bad_schema, and all lines of the run are strict JSON."""
    photos(2)
    first: list[str] = []

    def answer(request: Received) -> str:
        first.append(request.pictures[0].sha256)
        return f'{{"data": {"1e1818181818518181" if first[0] == first[-1] else 1e300}}}'

    endpoint.answer = answer
    asked = ("run", "photos", "-b", "vllm", "--base-url", endpoint.url, "-m", "tiny-vision", "-c", "1")
    done = run(*asked, "--schema", SCHEMA, "-o", "o.jsonl", "--summary", "s.json", "--log-json", "-q")
    assert done.returncode == 3, done.stderr
    lines = Path("o.jsonl").read_text().splitlines()
    for line in (*lines, *done.stderr.splitlines(), Path("s.json").read_text()):
        strictly(line)
    kinds = [record["error"] and record["error"]["kind"] for record in records(lines)]
    assert sorted(kinds, key=str) == [None, "bad_schema"]


def test_earlier_records_that_are_no_json_are_not_reused(tmp_path: Path) -> None:
    """A line or a cached answer with Infinity, as older versions wrote it, is no record and no answer."""
    good = replace(
        answered("a.jpg"), completion=Completion(text="1", model="m", finish_reason="stop", data=1)
    )
    line = to_line(good.to_record())
    assert parse(line) is not None
    assert parse(line.replace(b'"data":1,', b'"data":Infinity,')) is None
    assert parse(line.replace(b'"data":1,', b'"data":1e999,')) is None
    cache = Cache(str(tmp_path), print)
    for name, data in (("a" * 64, 1), ("b" * 64, float("inf"))):
        image = replace(good.image, sha256=name)
        cache.keep(replace(good, image=image, completion=replace(good.completion, data=data)))
    assert cache.find(good.run, "a" * 64, good.prompt) is not None
    assert cache.find(good.run, "b" * 64, good.prompt) is None
    cache.close()


@pytest.mark.parametrize(
    "price", ["NaN", "Infinity", "1e999", "1e308", "-1e-6", '"free"', "true", "9" * 400, "9" * 5000]
)
def test_a_price_is_a_number(tmp_path: Path, price: str) -> None:
    """A price that is not a number, or is negative, is an error that names the file and the model."""
    file = tmp_path / "prices.json"
    file.write_text(f'{{"m": {{"input_cost_per_token": {price}, "output_cost_per_token": 1e-6}}}}')
    with pytest.raises(ConfigError, match=r"--prices .*prices.json has no usable price for m; write"):
        Prices(str(file)).of("m")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(ANYTHING)
def test_any_value_is_a_number_or_none(value: object) -> None:
    """Whatever JSON holds, a number is finite or None, a count is a whole number, and a text is whole."""
    found = number(value)
    assert found is None or -(2**53) <= found <= 2**53
    assert 0 <= count(value) <= 2**53
    string(value).encode("utf-8")
