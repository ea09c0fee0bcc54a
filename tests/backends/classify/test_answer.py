"""The check of answers with status 200."""

import json
from typing import Any

import pytest
from wire_outcomes import BAD_RESPONSE, OK, SERVER_ERROR, Outcome

from vlmbatch.backends.classify import check_answer
from vlmbatch.backends.classify.answer import repeats
from vlmbatch.errors import BackendError, BadAnswerError, RejectedError
from vlmbatch.finish_reasons import reason_in

REFUSED: Outcome = (RejectedError, "refused")


def outcome(error: BackendError | None) -> Outcome:
    return None if error is None else (type(error), error.kind)


def answer(text: str | None, reason: str | None, **marks: Any) -> BackendError | None:
    try:
        check_answer(text, reason, **marks)
    except BackendError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("text", "reason", "marks", "expected"),
    [
        ("A cat.", "stop", {}, OK),
        ("A cat.", "stop", {"done": True}, OK),
        ("A cat.", "", {"done": True}, OK),
        ("A cat.", None, {"done": True}, OK),
        ("A cat.", None, {}, OK),
        ("A cat.", "whatever", {}, OK),
        ("", None, {}, (BadAnswerError, "empty")),
        ("A cat", None, {"done": False}, (BadAnswerError, "degenerate")),
        ("", None, {"done": False}, (BadAnswerError, "degenerate")),
        ("A cat and", "length", {}, (BadAnswerError, "truncated")),
        ("abc " * 500, "length", {"done": True}, (BadAnswerError, "truncated")),
        ("", "stop", {}, (BadAnswerError, "empty")),
        (" \n", "stop", {"done": True}, (BadAnswerError, "empty")),
        (None, "stop", {}, (BadAnswerError, "empty")),
        ("A cat and", "FinishReason.MAX_TOKENS", {}, (BadAnswerError, "truncated")),
        ("", "content_filter", {}, REFUSED),
        ("", "content_filter: PROHIBITED_CONTENT", {}, REFUSED),
        ("", "IMAGE_SAFETY", {}, REFUSED),
        (None, "stop", {"refusal": "I cannot help with that."}, REFUSED),
        ("A cat", "abort", {}, SERVER_ERROR),
        ("out of memory", "error", {}, BAD_RESPONSE),
        ("", "load", {"done": True}, BAD_RESPONSE),
        ("", "unload", {"done": True}, BAD_RESPONSE),
        ("A cat", "repetition", {}, (BadAnswerError, "degenerate")),
        ("", "tool_calls", {}, (BadAnswerError, "bad_response")),
        ("!" * 40, "stop", {}, (BadAnswerError, "degenerate")),
    ],
)
def test_status_200_is_not_success(
    text: str | None, reason: str | None, marks: dict[str, Any], expected: Outcome
) -> None:
    """Only an answer that ended by itself, is not empty and does not repeat itself counts."""
    assert outcome(answer(text, reason, **marks)) == expected


@pytest.mark.parametrize(
    ("reason", "thinking", "change"),
    [
        ("stop", "hmm", "no_thinking"),
        ("length", "hmm", "no_thinking"),
        ("length", None, "no_thinking"),
        ("stop", " \n", "reseed"),
        ("stop", None, "reseed"),
        ("stop", "", "reseed"),
    ],
)
def test_an_empty_answer_after_thinking_is_retried_without_it(
    reason: str, thinking: str | None, change: str
) -> None:
    """The retry of an empty answer is without thinking if the model thought, else with another seed."""
    error = answer("", reason, thinking=thinking)
    assert error is not None
    assert (error.kind, error.change) == ("empty", change)


def test_the_message_names_thinking_only_after_thoughts() -> None:
    """The message names thinking if the model thought; with --max-tokens 1 alone it names the limit."""
    told = {
        name: str(answer("", reason, thinking=thinking))
        for name, reason, thinking in (
            ("both", "length", "Hm"),
            ("thought", "stop", "Hm"),
            ("cut", "length", ""),
            ("neither", "stop", ""),
        )
    }
    assert told["both"].startswith("the model used all of --max-tokens for thinking")
    assert told["thought"] == "the model wrote only thinking and no answer"
    assert told["cut"].startswith("the answer reached --max-tokens before its first word; set a larger")
    assert told["neither"] == "the model gave no answer"


def test_a_cut_answer_keeps_what_came() -> None:
    """A truncated answer keeps its text, and the message names --max-tokens."""
    error = answer("A cat and", "length")
    assert error is not None
    assert error.partial == "A cat and"
    assert "--max-tokens" in str(error)


LOOPS = (
    "!" * 60,
    "0 " * 40,
    "The image shows " + "a red car, " * 30,
    "A street. " + "There are many cars in the picture. " * 12,
    "Text:\n" + "The quick brown fox jumps over the lazy dog.\n" * 12,
    "- car\n" * 60,
    "\u732b" * 50,
    "A dog" + " and a dog" * 40 + ".",
    "\U0001f431" * 40,
)
TABLE_ROW = "| {} | N/A | 0 | $0.00 | $0.00 |\n"
HONEST = (
    "A cat.",
    "Hahahahaha!",
    "-" * 25,
    "\n".join(f"{n}. item number {n}" for n in range(1, 200)),
    "| id | a | b | c | d |\n|---|---|---|---|---|\n" + "".join(TABLE_ROW.format(n) for n in range(60)),
    "| a | b | c | d |\n|---|---|---|---|\n" + "| N/A | N/A | N/A | N/A |\n" * 20,
    "day,rain\n" + "0,0\n" * 25,
    "| Name" + " " * 200 + "|\n|" + "-" * 205 + "|\n" + ("|" + " " * 205 + "|\n") * 40,
    "Name: " + "_" * 80,
    "Chapter 1 " + "." * 120,
    json.dumps([{"label": "car", "color": "red"}] * 60),
    json.dumps({"objects": ["car"] * 80}),
    json.dumps({"pixels": [[0] * 40] * 40}, indent=1),
    "- car\n" * 12,
    "Ja, ja, ja, ja, ja, ja, ja, ja!",
    "The sign reads: STOP STOP STOP STOP STOP STOP STOP STOP",
    "Row, row, row your boat, gently down the stream. " * 3,
    "",
)


@pytest.mark.parametrize("text", LOOPS)
def test_loops_are_detected(text: str) -> None:
    """Words or sentences that repeat until the end are a loop."""
    assert repeats(text)


@pytest.mark.parametrize("text", HONEST)
def test_tables_lists_and_json_are_no_loops(text: str) -> None:
    """Ordinary text with equal rows, ruled lines, padding and long lists is not a loop."""
    assert not repeats(text)


def test_flaws_that_are_accepted_are_warnings() -> None:
    """The flaws of --accept are accepted with a warning each; any other flaw is an error."""
    both = frozenset(("length", "loop"))
    assert check_answer("A cat", "length", accept=both) == (
        "the answer was accepted although --max-tokens cut it",
    )
    assert check_answer("A cat. " * 60, "stop", accept=both) == (
        "the answer was accepted although it repeats itself",
    )
    assert len(check_answer("A cat. " * 60, "length", accept=both)) == 2
    assert check_answer("!!!!", "", done=False, accept=both)
    assert check_answer("a a a", "repetition", accept=both)
    assert check_answer("A cat.", "stop", accept=both) == ()
    for flaw, text, reason in (("length", "A cat. " * 60, "length"), ("loop", "A cat. " * 60, "length")):
        with pytest.raises(BadAnswerError):
            check_answer(text, reason, accept=frozenset((flaw,)))
    with pytest.raises(BadAnswerError):
        check_answer("", "stop", accept=both)
    with pytest.raises(RejectedError):
        check_answer("A cat", "content_filter", accept=both)


@pytest.mark.parametrize("reason", [None, "", "whatever"])
def test_accepting_flaws_accepts_no_reply_without_text_and_end(reason: str | None) -> None:
    """A reply without text and a known finish reason is no answer, even if empty answers are accepted."""
    assert outcome(answer("", reason, accept=frozenset(("length", "loop", "empty")))) == BAD_RESPONSE
    assert answer("", "stop", accept=frozenset(("empty",))) is None


def test_an_empty_answer_with_ollamas_end_mark_can_be_accepted() -> None:
    """Ollama's end mark shows that the answer has ended, also without a finish reason."""
    for reason in (None, "", "null"):
        accepted = check_answer("", reason, done=True, accept=frozenset(("empty",)))
        assert accepted == ("the answer was accepted although it is empty",), reason


ENDS = (
    *("stop", "STOP", "stopped", "eos_token", "eos", "end", "end_turn", "stop_sequence", "COMPLETE", "null"),
    *("FINISHED", "STOP_CRITERIA_MET", "FinishReason.STOP", "FINISH_REASON_STOP", "REASON_STOP", "eosFound"),
    *("stopStringFound", "normal", "", None, "none", "FINISH_REASON_UNSPECIFIED"),
)
UNKNOWN_ENDS = ("OTHER", "whatever", "5")
CUT = (
    *("length", "LENGTH", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "maxTokens"),
    *("FinishReason.MAX_TOKENS", "max_new_tokens", "token_limit", "model_context_window_exceeded"),
    *("maxPredictedTokensReached", "contextLengthReached", "ERROR_LIMIT", "limit", "max-tokens"),
)
STOPPED = {
    "refused": (
        *("content_filter", "content-filter", "CONTENT_FILTERED", "SAFETY", "guardrail_intervened", "spii"),
        *("refusal", "sensitive", "ERROR_TOXIC", "MODEL_ARMOR", "content_filter: SAFETY"),
    ),
    "server_error": (
        *("abort", "cancelled", "insufficient_system_resource", "network_error", "TIMEOUT", "USER_CANCEL"),
        *("userStopped", "modelUnloaded"),
    ),
    "bad_response": (
        *("error", "ERROR", "failed", "internal_error", "load", "tool_calls", "tool_use", "function_call"),
        *("toolCalls", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "pause_turn"),
    ),
}


def test_a_text_has_ended_unless_its_reason_says_otherwise() -> None:
    """A text is complete unless its finish reason is a word for cut, filtered, aborted, failed or tools."""
    for reason in ENDS:
        assert check_answer("A cat.", reason) == (), reason
    for reason in UNKNOWN_ENDS:
        (warning,) = check_answer("A cat.", reason)
        assert "an unknown finish reason" in warning, reason
    for reason in CUT:
        assert outcome(answer("A cat and", reason)) == (BadAnswerError, "truncated"), reason
    for kind, reasons in STOPPED.items():
        for reason in reasons:
            error = answer("A cat and", reason)
            assert error is not None, reason
            assert (error.kind, error.partial) == (kind, "A cat and"), reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("stop", "stop"),
        ({"type": "length", "length": 16}, "length"),
        ({"reason": "eos"}, "eos"),
        ({"type": 5}, ""),
        (None, ""),
        (5, ""),
        (["stop"], ""),
    ],
)
def test_a_reason_may_be_an_object(value: object, expected: str) -> None:
    """SGLang's object has the reason in its `type`; a value without a word says nothing."""
    assert reason_in(value) == expected
