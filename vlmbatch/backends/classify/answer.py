"""Whether an answer that came with status 200 is of use."""

import re

from vlmbatch.backends.classify.body import clean
from vlmbatch.backends.classify.row import Row
from vlmbatch.errors import BadAnswerError, RejectedError, TransientError

_RULES = frozenset(" \t\n-_=.*~|+#:/\\<>\u00b7\u2013\u2014\u2026\u2500\u2501\u2502\u2550")
_LONGEST_UNIT = 400

FINISHES: tuple[Row, ...] = (
    Row(
        "filtered",
        # Gemini's own words come through its OpenAI route as they are
        r"^(content_filter|(image_)?(safety|prohibited_content|recitation)|blocklist|spii)\b",
        RejectedError,
        "refused",
        "a content filter stopped the answer",
    ),
    Row("aborted", r"^(abort|aborted|cancell?ed)$", TransientError, "server_error", "the engine gave up"),
    Row("failed", r"^error$", TransientError, "bad_response", "the engine failed while it answered"),
    Row(
        "loaded",
        r"^(un)?load$",
        TransientError,
        "bad_response",
        "the engine loaded or unloaded and did no more",
    ),
    Row("tool", r"^(tool_calls|function_call)$", BadAnswerError, "bad_response", "the model called a tool"),
)
"""Finish reasons of answers that are of no use."""


def check_answer(
    text: str | None,
    finish_reason: str | None,
    *,
    done: bool | None = None,
    thinking: str | None = None,
    refusal: str | None = None,
    accept: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Return if the answer is usable: ended by itself, not empty, not a loop.

    `done` is Ollama's end mark, None for a wire that has none; only with `done=True` may the finish
    reason be missing. `refusal` is OpenAI's field of that name. `accept` names flaws that are let pass:
    `length` (cut by the token limit), `loop` and `empty`; what comes back are warnings about those.

    Raises:
        BadAnswerError: empty, truncated or degenerate; `partial` is the text, `change` how to ask again.
        RejectedError: a content filter or the model refuses.
        TransientError: the engine gave up, or the reply lacks its finish reason.
    """
    answer, reason = text or "", (finish_reason or "").strip().lower()
    if refusal:
        raise RejectedError(f"the model refuses: {clean(refusal)}", kind="refused")
    for row in FINISHES:
        if row.fits(200, reason):
            words = f": {clean(answer)}" if reason == "error" and answer.strip() else ""
            raise row.error(row.says + words, kind=row.kind, change=row.change, partial=answer or None)
    flaws = _flaws(answer, reason, done, bool(thinking))
    for flaw, error in flaws.items():
        if flaw not in accept:
            raise error
    if reason not in _ENDS and not (reason == "" and done is not None):
        told = f"with {clean(reason)!r}" if reason else "without a finish reason"
        raise TransientError(f"the answer ended {told}", kind="bad_response")
    return tuple(_ACCEPTED[flaw] for flaw in flaws)


_ENDS = ("stop", "length", "max_tokens", "repetition")
_ACCEPTED = {
    "length": "accepted although --max-tokens cut it",
    "loop": "accepted although it repeats itself",
    "empty": "accepted although it is empty",
}


def _flaws(answer: str, reason: str, done: bool | None, thought: bool) -> dict[str, BadAnswerError]:
    """What is wrong with an answer, by the words of --accept, the worst first."""
    cut = reason in ("length", "max_tokens")
    if done is False:
        told = "the answer broke off without its end mark, as Ollama does when a model repeats itself"
        flaw = "loop" if answer.strip() else "empty"
        return {flaw: BadAnswerError(told, kind="degenerate", partial=answer or None)}
    if reason == "repetition":
        told = "the engine stopped an answer in a loop"
        return {"loop": BadAnswerError(told, kind="degenerate", partial=answer or None)}
    if not answer.strip():
        return {"empty": _empty(thought, cut)}
    loops = repeats(answer)
    flaws = {}
    if cut:
        told = "the answer repeats itself until" if loops else "the answer is longer than"
        hint = "" if loops else "; a larger --max-tokens lets it finish"
        told = f"{told} --max-tokens allows{hint}"
        flaws["length"] = BadAnswerError(told, kind="truncated", partial=answer)
    if loops:
        told = "the answer repeats itself over and over"
        flaws["loop"] = BadAnswerError(told, kind="degenerate", partial=answer)
    return flaws


def _empty(thought: bool, cut: bool) -> BadAnswerError:
    """An empty answer that used up its tokens has thought, even where the server hides what."""
    if thought or cut:
        told = "the model spent its tokens on thinking and answered nothing"
        return BadAnswerError(told, kind="empty", change="no_thinking")
    return BadAnswerError("the model answered nothing", kind="empty", change="reseed")


def repeats(text: str) -> bool:
    """Whether `text` ends in a loop, or is one character over and over.

    A loop is the same words 31 times in a row, or 10 times and over 200 characters. Lines count 31
    times, since tables and lists have equal rows, unless each is a sentence. Ruled lines (`-----`,
    `| | |`) are no loop, and neither is what a closing bracket ends, so JSON never is.
    """
    text = text.strip()
    if len(text) > 30 and len(set(text) - set(" \t\n")) <= 1:
        return True
    text = text.rstrip("\"'`., \t\n\u201d\u3002")
    for size in range(1, min(_LONGEST_UNIT, len(text) // 10) + 1):
        if text[-size - 1] != text[-1] or not _ends_in(text, size, 10 * size):
            continue
        if _ends_in(text, size, _loop_length(text[-size:])):
            return not _RULES.issuperset(text[-size:])
    return False


def _ends_in(text: str, size: int, length: int) -> bool:
    """Whether the last `length` characters are nothing but the last `size` ones, over and over."""
    tail = text[-length:]
    return len(tail) == length and tail[size:] == tail[:-size]


def _loop_length(unit: str) -> int:
    """How many characters of nothing but `unit` are a loop."""
    sentence = len(set(re.findall(r"[^\W\d_]{2,}", unit))) >= 5
    if "\n" in unit and not sentence:
        return 31 * len(unit)
    return min(31 * len(unit), max(200, 10 * len(unit)))
