"""Requests without a picture, and requests that accept flaws of an answer."""

from dataclasses import replace

import pytest
from backend_contract import KINDS, question

from vlmbatch.errors import BadAnswerError, RejectedError

WIRES = pytest.mark.parametrize("name", ["ollama", "openai"])
ALL = frozenset(("length", "loop", "empty"))


@WIRES
async def test_question_without_a_picture(name: str) -> None:
    """A request without a picture is sent as text only, and is answered."""
    with KINDS[name].endpoint() as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            done = await backend.complete(replace(question("Are you there?"), images=()))
    assert done.text == "no picture"
    alone: dict[str, object] = {
        "ollama": "Are you there?",
        "openai": [{"type": "text", "text": "Are you there?"}],
    }
    assert endpoint.questions[0].body["messages"] == [{"role": "user", "content": alone[name]}]


FLAWS = {
    "length": ({"length"}, ["the answer was accepted although --max-tokens cut it"]),
    "loop": ({"loop"}, ["the answer was accepted although it repeats itself"]),
    "bangs": ({"loop"}, ["the answer was accepted although it repeats itself"]),
    "length_loop": (
        {"length", "loop"},
        [
            "the answer was accepted although --max-tokens cut it",
            "the answer was accepted although it repeats itself",
        ],
    ),
    "empty": ({"empty"}, ["the answer was accepted although it is empty"]),
    "empty_thinking": ({"empty"}, ["the answer was accepted although it is empty"]),
}


@WIRES
@pytest.mark.parametrize("mode", FLAWS)
async def test_flaws_that_are_accepted(name: str, mode: str) -> None:
    """An answer whose flaws are all accepted has a warning for each; otherwise it is an error."""
    needed, warnings = FLAWS[mode]
    with KINDS[name].endpoint(script=[mode] * 3) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            done = await backend.complete(replace(question(), accept=frozenset(needed)))
            for missing in needed:
                with pytest.raises(BadAnswerError):
                    await backend.complete(replace(question(), accept=ALL - {missing}))
    assert list(done.warnings) == warnings


@pytest.mark.parametrize(
    ("name", "mode"),
    [("ollama", "content_filter"), ("openai", "content_filter"), ("openai", "refusal")],
)
async def test_refusals_are_never_accepted(name: str, mode: str) -> None:
    """A filtered or refused answer is an error, even if all flaws are accepted."""
    with KINDS[name].endpoint(script=[mode]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            with pytest.raises(RejectedError):
                await backend.complete(replace(question(), accept=ALL))
