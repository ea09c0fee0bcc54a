"""The test endpoint's model: its view of pictures, its token counts and its replies to canaries."""

import http.client
import json
import re
from typing import Any

import pytest

from endpoint import Endpoint, Model
from endpoint.client import CHAT_PATHS, answer_in, ask, both_wires, jpeg, question, raw, says_nothing
from endpoint.wires import BLIND, CANARY

ORANGE, PURPLE = (255, 140, 0), (128, 0, 128)


def canary(path: str, picture: bytes | None = None) -> dict[str, Any]:
    return question(path, picture, text=f"{CANARY} Answer with one word.")


def counted(path: str, text: str) -> int | None:
    """The prompt tokens that the reply reports."""
    payload: dict[str, Any] = json.loads(text)
    counts = payload if path == "/api/chat" else payload.get("usage", {})
    told: int | None = counts.get("prompt_eval_count" if path == "/api/chat" else "prompt_tokens")
    return told


@both_wires
@pytest.mark.parametrize(
    ("colour", "name"),
    [(ORANGE, "orange"), ((250, 146, 8), "orange"), (PURPLE, "purple"), ("blue", "blue"), ("white", "white")],
)
def test_a_canary_is_answered_with_its_colour(endpoint: Endpoint, path: str, colour: Any, name: str) -> None:
    """A model that sees names the colour of the picture, even if JPEG has changed it a little."""
    text = ask(endpoint, path, canary(path, jpeg(colour)))[1]
    assert answer_in(path, text) == (name, "stop")


@both_wires
def test_a_canary_without_a_picture_is_answered_with_no_picture(endpoint: Endpoint, path: str) -> None:
    """The answer to a canary without a picture is "no picture"."""
    assert answer_in(path, ask(endpoint, path, canary(path, b""))[1]) == ("no picture", "stop")


@both_wires
def test_canaries_are_not_counted_as_questions(endpoint: Endpoint, path: str) -> None:
    """Canaries take no mode of a script and no number, and are not listed as questions or requests."""
    endpoint.script = ["500", "408"]
    statuses = [
        ask(endpoint, path, body)[0]
        for body in (canary(path), question(path), canary(path), question(path), canary(path, b""))
    ]
    assert statuses == [200, 500, 200, 408, 200]
    assert [question.chat for question in endpoint.questions] == [0, 1]
    assert [len(question.pictures) for question in endpoint.canaries] == [1, 1, 0]
    assert (endpoint.most_open_questions, len(endpoint.requests)) == (1, 2)


def test_scripts_do_not_apply_to_canaries(endpoint: Endpoint) -> None:
    """A script that is a function or a table by picture does not change the reply to a canary."""
    for script in ({"": "500"}, lambda request: "500"):
        endpoint.script = script
        assert ask(endpoint, "/api/chat", canary("/api/chat"))[0] == 200
    endpoint.script = {}
    ask(endpoint, "/api/chat", canary("/api/chat"))
    endpoint.script = {endpoint.canaries[-1].pictures[0].sha256: "500"}
    assert ask(endpoint, "/api/chat", canary("/api/chat"))[0] == 200


@both_wires
def test_canaries_have_their_own_mode(path: str) -> None:
    """The mode of canaries can change while the endpoint runs, and does not affect questions."""
    with Endpoint(canary="503-busy") as endpoint:
        assert ask(endpoint, path, canary(path))[0] == 503
        assert ask(endpoint, path, question(path))[0] == 200
        endpoint.canary = "500"
        assert ask(endpoint, path, canary(path))[0] == 500
        endpoint.canary = "closenoresp"
        with pytest.raises(http.client.RemoteDisconnected):
            ask(endpoint, path, canary(path))
        endpoint.canary = "ok"
        assert ask(endpoint, path, canary(path))[0] == 200


def test_canaries_use_a_slot_uncounted() -> None:
    """A canary occupies a slot like a question, but is not counted as open or abandoned."""
    with Endpoint(slots=1, canary="hang") as endpoint:
        with raw(endpoint, "/api/chat", text=CANARY) as open_canary:
            endpoint.until(lambda: len(endpoint.canaries) == 1)
            with raw(endpoint, "/api/chat") as queued:
                endpoint.until(lambda: endpoint.open_questions == 1)
                assert (says_nothing(open_canary), says_nothing(queued)) == (True, True)
                open_canary.close()
                assert queued.recv(12) == b"HTTP/1.1 200"
        assert (endpoint.most_open_questions, endpoint.abandoned) == (1, 0)


@both_wires
def test_canaries_fail_like_questions(endpoint: Endpoint, path: str) -> None:
    """A canary fails if the endpoint is down, its path fails, or its model is missing or has no vision."""
    endpoint.routes = {path: "503-loading"}
    assert ask(endpoint, path, canary(path))[0] == 503
    endpoint.routes = {}
    assert ask(endpoint, path, canary(path) | {"model": "nope"})[0] == 404
    assert ask(endpoint, path, canary(path) | {"model": "tiny-text"})[0] == 400
    endpoint.down()
    with pytest.raises(ConnectionRefusedError):
        ask(endpoint, path, canary(path))


@both_wires
def test_answers_to_canaries_can_be_wrong(endpoint: Endpoint, path: str) -> None:
    """The answer to canaries can be set, as for a model that guesses, without a change to other answers."""
    endpoint.answer_canary = lambda request: "Green, I guess."
    assert answer_in(path, ask(endpoint, path, canary(path))[1])[0] == "Green, I guess."
    assert "size=64x48" in ask(endpoint, path, question(path))[1]


@both_wires
@pytest.mark.parametrize(
    ("counts", "with_picture", "without"),
    [("real", 67, 3), ("words", 3, 3), ("constant", 40, 40), ("none", None, None)],
)
def test_tokens_are_counted(
    endpoint: Endpoint, path: str, counts: str, with_picture: int | None, without: int | None
) -> None:
    """A word is one token and a picture 64, unless `counts` selects another way to count or none."""
    endpoint.counts = counts
    replies = [ask(endpoint, path, question(path, picture))[1] for picture in (None, b"")]
    assert [counted(path, reply) for reply in replies] == [with_picture, without]
    assert all((counts == "none") != bool(re.search('"usage"|_count"', reply)) for reply in replies)


@both_wires
def test_the_whole_prompt_is_counted(endpoint: Endpoint, path: str) -> None:
    """The words of a system prompt count too, and the total includes the answer."""
    body = question(path, b"")
    body["messages"].insert(0, {"role": "system", "content": "You are brief."})
    text = ask(endpoint, path, body)[1]
    assert counted(path, text) == 6
    if path != "/api/chat":
        usage = json.loads(text)["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == 6 + 3


def test_a_wrong_way_to_count_fails_the_test() -> None:
    """A misspelt value of `counts` fails the test that set it."""
    with pytest.raises(ValueError, match="no counts 'reel'"), Endpoint(counts="reel") as endpoint:  # noqa: SIM117
        with pytest.raises(ConnectionError):
            ask(endpoint, "/api/chat", question("/api/chat"))


@both_wires
def test_a_blind_model_sees_no_picture(endpoint: Endpoint, path: str) -> None:
    """A blind model silently drops pictures: only the words count, and the answer says that it sees none."""
    endpoint.blind = True
    for body, words in ((question(path), 3), (canary(path), 9)):
        text = ask(endpoint, path, body)[1]
        placeholder = 5 if path == "/api/chat" else 0
        assert (answer_in(path, text)[0], counted(path, text)) == (BLIND, words + placeholder)
    text = ask(endpoint, path, canary(path, b""))[1]
    assert (answer_in(path, text)[0], counted(path, text)) == ("no picture", 9)


@both_wires
def test_a_blind_endpoint_accepts_pictures(path: str) -> None:
    """A blind endpoint accepts a picture for a model without vision, as old servers do; others refuse it."""
    with Endpoint(models={"m": Model(vision=False)}, blind=True) as endpoint:
        assert ask(endpoint, path, question(path, model="m"))[0] == 200
    with Endpoint(models={"m": Model(vision=False)}) as endpoint:
        assert ask(endpoint, path, question(path, model="m"))[0] == 400


def test_a_blind_model_can_guess(endpoint: Endpoint) -> None:
    """If the model is blind, an answer that the test sets is also the answer to canaries."""
    endpoint.blind, endpoint.answer = True, lambda request: "Orange"
    for path in CHAT_PATHS:
        assert answer_in(path, ask(endpoint, path, canary(path))[1])[0] == "Orange"
