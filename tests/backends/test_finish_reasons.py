"""The end of an answer over each wire, in the words of any engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, LITELLM, question
from replying import OLLAMA, WIRES, Raw, as_json, chat, replying
from running import ran
from written_results import answered

from vlmbatch.cache import Cache
from vlmbatch.errors import BackendError
from vlmbatch.records import Completion

Photos = Callable[..., Path]
MISSING = "no finish reason at all"
OPENERS = {"ollama": KINDS["ollama"], "openai": KINDS["openai"], "litellm": LITELLM}


@pytest.mark.parametrize(
    "reason",
    [
        *("eos_token", "eos", "end", "end_turn", "stop_sequence", "COMPLETE", "null", "", None, MISSING),
        *({"type": "stop", "matched": 2}, {"type": None}, {}, ["stop"], True, 5),
    ],
)
@pytest.mark.parametrize("backend", WIRES)
async def test_a_run_takes_answers_that_ended_by_another_word(
    photos: Photos, backend: str, reason: object
) -> None:
    """Canaries and answers whose end has another name, or none, cost one request each and have no warning."""
    photos(2)
    path = WIRES[backend]

    def reply(at: str, text: str) -> Raw | None:
        answer = chat(at, text, reason)
        if reason == MISSING:
            for each in (answer, *answer.get("choices", ())):
                each.pop("done_reason", None)
                each.pop("finish_reason", None)
        return as_json(answer) if at == path else None

    with replying(reply) as server:
        done = await ran(backend=backend, base_url=server.url, model="tiny")
        assert done.error is None
    assert [(r.ok, r.warnings, r.attempts) for r in done.results] == [(True, (), 1)] * 2
    assert len(server.questions(path)) == 2


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("whatever", "A grey cat."),
        ("model_length", "truncated"),
        ("MAX_TOKENS", "truncated"),
        ({"type": "length", "length": 4}, "truncated"),
        ("insufficient_system_resource", "server_error"),
        ("sensitive", "refused"),
        ("tool_use", "bad_response"),
    ],
)
@pytest.mark.parametrize("name", OPENERS)
async def test_all_wires_understand_the_same_words(name: str, reason: Any, outcome: str) -> None:
    """Each backend reads the reasons of all engines in the same way; an unknown reason is a warning."""
    if name == "litellm" and isinstance(reason, dict):
        pytest.skip("the library itself accepts only a text")

    def reply(path: str, text: str) -> Raw | None:
        return as_json(chat(path, text, reason)) if path.endswith(("/chat", "/completions")) else None

    with replying(reply) as server:
        async with OPENERS[name].open(server.url, model="tiny") as backend:
            await backend.preflight()
            if outcome != "A grey cat.":
                with pytest.raises(BackendError) as caught:
                    await backend.complete(question())
                assert caught.value.kind == outcome
                return
            done = await backend.complete(question())
    assert (done.text, done.finish_reason) == (outcome, reason)
    assert any("an unknown finish reason" in warning for warning in done.warnings)


async def test_an_answer_without_ollamas_end_mark_is_no_answer(photos: Photos) -> None:
    """Whatever its reason is, an answer of Ollama that is not done is a failure."""
    photos(1)
    with replying(
        lambda at, text: as_json(chat(at, text, "stop", done=False)) if at == OLLAMA else None
    ) as server:
        done = await ran(backend="ollama", base_url=server.url, model="tiny", canary=False)
    assert [r.failure and r.failure.kind for r in done.results] == ["degenerate"]


def test_no_cut_answer_is_cached(tmp_path: Path) -> None:
    """An accepted answer that was cut is not cached, whatever the finish reason is called."""
    cache = Cache(str(tmp_path), print)
    for name, reason in (("a", "MAX_TOKENS"), ("b", "model_length"), ("c", "eos")):
        done = Completion(text="A cat", model="m", finish_reason=reason)
        result = replace(answered("a.jpg"), completion=done)
        cache.keep(replace(result, image=replace(result.image, sha256=name * 64)))
        found = cache.find(result.run, name * 64, result.prompt)
        assert (found is not None) is (reason == "eos")
    cache.close()
