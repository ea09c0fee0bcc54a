"""Schemas and answers that are made to stop or to crash the check."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from hypothesis import HealthCheck, given, settings
from running import ran
from schema_pairs import ANSWERS, DEEP, SCHEMAS, SLOW, nested
from selection import mostly_long
from waiting import until

from vlmbatch.errors import BadAnswerError, ConfigError
from vlmbatch.prompts.checking import CHECKER, CheckFailedError
from vlmbatch.prompts.schemas import LONGEST_ANSWER, AnswerSchema, schema_text
from vlmbatch.records import Completion

Photos = Callable[..., Path]
TREE = {"type": "object", "properties": {"x": {"$ref": "#"}}, "additionalProperties": False}


def data_of(schema: dict[str, Any], answer: str) -> Any:
    """The data in this answer to an accepted schema."""
    text = schema_text(json.dumps(schema))
    assert text is not None
    return AnswerSchema(text).read(Completion(text=answer, model="m", finish_reason="stop")).data


@pytest.mark.parametrize(
    "name", mostly_long(SLOW, ["a pattern with 100,000 repetitions", "references that double 40 times"])
)
def test_a_check_that_takes_too_long_is_ended(name: str) -> None:
    """A check without end makes its own answer bad_schema, and the next answer is checked as usual."""
    with pytest.raises(BadAnswerError, match="the answer takes too long to check") as caught:
        data_of(*SLOW[name])
    assert (caught.value.kind, caught.value.partial) == ("bad_schema", SLOW[name][1])
    assert data_of(TREE, '{"x": {}}') == {"x": {}}


def test_a_check_that_overflows_its_stack_costs_one_answer() -> None:
    """A check that crashes makes its own answer bad_schema, and the next answer is checked as usual."""
    with pytest.raises(BadAnswerError, match="the answer takes too much memory to check"):
        data_of(*DEEP)
    assert data_of(TREE, '{"x": {}}') == {"x": {}}


async def test_the_event_loop_goes_on_during_a_check(photos: Photos, endpoint: Endpoint) -> None:
    """While a check hangs, the event loop does other work; here it is the work that lets the check go on."""
    photos(1)

    def stop_the_checks(request: object) -> str:
        assert CHECKER._process is not None
        os.kill(CHECKER._process.pid, signal.SIGSTOP)
        return "{}"

    async def resume_the_checks() -> None:
        await asyncio.to_thread(until, lambda: endpoint.questions and CHECKER._lock.locked())
        assert CHECKER._process is not None
        os.kill(CHECKER._process.pid, signal.SIGCONT)

    endpoint.answer = stop_the_checks
    resuming = asyncio.create_task(resume_the_checks())
    done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", schema="{}")
    await resuming
    assert [result.to_record()["data"] for result in done.results] == [{}]


@pytest.mark.parametrize(
    ("schema", "answer", "matches"),
    [
        ({"pattern": "^(a+)+$"}, json.dumps("a" * 50_000 + "!"), False),
        ({"pattern": "^(a|aa)+$"}, json.dumps("a" * 50_000), True),
        ({"pattern": "^(?=a)(?!b)a+$"}, '"aaa"', True),
        ({"uniqueItems": True}, json.dumps([{"a": n} for n in range(4_000)]), True),
        ({"uniqueItems": True}, json.dumps([{"a": n} for n in [*range(4_000), 7]]), False),
        (TREE, json.dumps(nested(190, {})), True),
        (TREE, json.dumps(nested(190, 5)), False),
        ({"multipleOf": 10**300}, str(10**301), True),
        ({"multipleOf": 0.01}, "1e300", True),
        ({"type": "integer", "minimum": 0}, str(-(10**300)), False),
        (
            {"anyOf": [{"properties": {"x": {"$ref": "#"}}, "required": ["x"]}] * 2},
            json.dumps(nested(30, {})),
            False,
        ),
    ],
)
def test_large_answers_are_checked(schema: dict[str, Any], answer: str, matches: bool) -> None:
    """Patterns that others backtrack over, long lists, deep trees and large numbers get the right verdict."""
    if matches:
        assert data_of(schema, answer) == json.loads(answer)
    else:
        with pytest.raises(BadAnswerError, match="does not match") as caught:
            data_of(schema, answer)
        assert len(str(caught.value)) < 600


def test_a_very_long_answer_is_not_parsed() -> None:
    """An answer longer than a million characters is bad_schema."""
    with pytest.raises(BadAnswerError, match="the answer is longer than 1,000,000 characters"):
        data_of({}, json.dumps("a" * LONGEST_ANSWER))
    assert data_of({}, json.dumps("a" * (LONGEST_ANSWER - 2))) == "a" * (LONGEST_ANSWER - 2)


@pytest.mark.parametrize(
    ("schema", "ref"),
    [
        ({"$ref": "#"}, "#"),
        ({"allOf": [{"$ref": "#"}]}, "#"),
        ({"properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, "#/properties/a"),
        ({"$dynamicAnchor": "n", "anyOf": [{"$dynamicRef": "#n"}]}, "#n"),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema", "oneOf": [{"$recursiveRef": "#"}]}, "#"),
        ({"$defs": {"a": {"$anchor": "b", "if": {"$ref": "#b"}}}}, "#b"),
        ({"$defs": {"a": {"$id": "http://x/y", "then": {"$ref": "#"}}}}, "#"),
        (
            {"$defs": {"a b": {"else": {"$ref": "#/$defs/c~1d"}}, "c/d": {"$ref": "#/$defs/a%20b"}}},
            "#/\\$defs/.*",
        ),
        ({"dependentSchemas": {"x": {"$ref": "#"}}}, "#"),
        ({"items": [{"anyOf": [{}, {"$ref": "#/items/0"}]}]}, "#/items/0"),
        ({"properties": {"default": {"$ref": "#/properties/default"}}}, "#/properties/default"),
    ],
)
def test_a_schema_that_refers_to_itself_without_end_is_refused(schema: dict[str, Any], ref: str) -> None:
    """A reference that leads back to its own place of the answer is a ConfigError that names it."""
    with pytest.raises(ConfigError, match=f'refers to itself without end with "{ref}"; write this reference'):
        schema_text(json.dumps(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"$ref": "#"}}},
        {"anyOf": [{"type": "null"}, {"items": {"$ref": "#"}}]},
        {"$defs": {"a": {"type": "null"}}, "anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]},
        {"const": {"$ref": "#"}, "default": {"$ref": "other.json"}},
        {"properties": {"not": {"$ref": "#"}, "allOf": {"$ref": "#"}}},
        {"$dynamicAnchor": "n", "properties": {"x": {"$dynamicRef": "#n"}}},
        {"$ref": "#a", "$defs": {"a": {"$anchor": "a", "items": {"$ref": "#a"}}}},
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "definitions": {"a": {}},
            "not": {"$ref": "#/definitions/a"},
        },
        {"$schema": "https://example.org/of-my-own", "x-own": 1, "format": "email"},
    ],
)
def test_other_references_are_accepted(schema: dict[str, Any]) -> None:
    """Trees, shared definitions, anchors and data that looks like a reference are no endless reference."""
    assert json.loads(schema_text(json.dumps(schema)) or "") == schema


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (
            '{"properties": {"a": {"pattern": "("}}}',
            r"\$\.properties\.a\.pattern: \"\(\" is not a regular expr",
        ),
        ('{"$ref": "#/$defs/none"}', "Pointer '/\\$defs/none' does not exist"),
        ('{"multipleOf": 1' + "0" * 400 + "}", "the number 10000000000000000... is too large"),
        ('{"multipleOf": NaN}', "JSON has no number NaN"),
        ('{"$dynamicRef": "http://127.0.0.1:9/x"}', "refers to http://127.0.0.1:9/x"),
        ('{"enum": ["\\ud800"]}', "is not a JSON Schema that can be used"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: str, told: str) -> None:
    """A bad pattern, a reference to nothing, an endless number and half a character are ConfigErrors."""
    with pytest.raises(ConfigError, match=told):
        schema_text(schema)


def test_no_schema_is_fetched() -> None:
    """The check itself makes no connection for a reference to another host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        told = CHECKER.check(json.dumps({"$ref": url}), [1])
        assert isinstance(told, str)
        assert "Retrieval is disabled" in told
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_checks_survive_the_end_of_their_process() -> None:
    """If the system ends the process of the checks, the next answer starts another one."""
    assert data_of(TREE, "{}") == {}
    assert CHECKER._process is not None
    os.kill(CHECKER._process.pid, signal.SIGKILL)
    CHECKER._process.wait()
    assert data_of(TREE, '{"x": {}}') == {"x": {}}


@pytest.mark.parametrize("answer", ["short", "x" * 500_000], ids=["short", "longer than a pipe holds"])
def test_a_check_in_a_stopped_process_ends(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check whose process does not go on takes too long, and the next answer starts another one."""
    assert data_of(TREE, "{}") == {}
    assert CHECKER._process is not None
    os.kill(CHECKER._process.pid, signal.SIGSTOP)
    monkeypatch.setattr("vlmbatch.prompts.checking.PATIENCE_S", 0.1)
    with pytest.raises(CheckFailedError, match="takes too long to check"):
        CHECKER.check("{}", [answer])
    monkeypatch.undo()
    assert data_of(TREE, '{"x": {}}') == {"x": {}}


def test_an_interrupted_check_leaves_no_verdict_to_the_next_one() -> None:
    """After Ctrl-C during a check, the next answer gets its own verdict."""
    assert CHECKER.check("{}", [1]) == [None]
    assert CHECKER._process is not None
    stopped = CHECKER._process.pid
    os.kill(stopped, signal.SIGSTOP)

    def interrupt(*_: object) -> None:
        os.kill(stopped, signal.SIGCONT)
        raise KeyboardInterrupt

    def press_ctrl_c() -> None:
        until(CHECKER._lock.locked)
        time.sleep(0.1)  # for a check that would be interrupted too early to show anything
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            CHECKER.check("{}", [1])
    signal.signal(signal.SIGUSR1, before)
    assert CHECKER.check('{"type": "object"}', [1]) == ['$: 1 is not of type "object"']


def test_a_fork_during_a_check_can_check() -> None:
    """A process that is forked while a check hangs does not wait for that check."""
    code = (
        "import os, signal, sys, threading; sys.path[:0] = sys.argv[1:]\n"
        "from vlmbatch.prompts.checking import CHECKER\n"
        "assert CHECKER.check('{}', [1]) == [None]\n"
        "pid = CHECKER._process.pid; os.kill(pid, signal.SIGSTOP)\n"
        "check = threading.Thread(target=CHECKER.check, args=('{}', [1])); check.start()\n"
        "while not CHECKER._lock.locked() or check.native_id is None: pass\n"
        "threading.Event().wait(0.5)\n"
        "if not os.fork():\n"
        "    signal.alarm(60); assert CHECKER.check('{}', [1]) == [None]; CHECKER.close(); os._exit(7)\n"
        "code = os.waitstatus_to_exitcode(os.wait()[1]); os.kill(pid, signal.SIGCONT); check.join()\n"
        "assert code == 7, code\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-W", "ignore", "-c", code, *sys.path]) == 0


def test_a_fork_has_checks_of_its_own() -> None:
    """A forked process does not read the verdicts of its parent."""
    assert data_of(TREE, "{}") == {}
    assert CHECKER._process is not None
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "from vlmbatch.prompts.checking import CHECKER\n"
        "assert CHECKER.check('{}', [1]) == [None]\n"
        "first = CHECKER._process.pid\n"
        "if not os.fork():\n"
        "    assert CHECKER.check('{}', [1]) == [None] and CHECKER._process.pid != first\n"
        "    CHECKER.close(); os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
        "assert CHECKER.check('{}', [1]) == [None] and CHECKER._process.pid == first\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-W", "ignore", "-c", code, *sys.path]) == 0


@pytest.mark.parametrize("examples", mostly_long([50, 400], [50]))
def test_any_answer_to_any_schema_is_data_or_a_bad_answer(examples: int) -> None:
    """A schema is accepted or a ConfigError; an answer to it is read or a BadAnswerError."""
    all_checks = list(HealthCheck)
    limits = settings(max_examples=examples, suppress_health_check=all_checks, derandomize=True)
    limits(given(schema=SCHEMAS, answer=ANSWERS)(is_data_or_a_bad_answer))()


def is_data_or_a_bad_answer(schema: dict[str, Any], answer: str) -> None:
    """Assert that this schema and this answer end in data, or in an error of ours."""
    try:
        text = schema_text(json.dumps(schema))
    except ConfigError:
        return
    assert text is not None
    try:
        done = AnswerSchema(text).read(Completion(text=answer, model="m", finish_reason="stop"))
        written = json.dumps(done.data, allow_nan=False)
    except BadAnswerError as error:
        written = f"{error.kind}: {error}"
    assert written.startswith("bad_schema: ") or json.loads(written) == done.data
