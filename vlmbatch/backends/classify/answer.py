"""Checks that an answer with status 200 is usable."""

import re

from vlmbatch.backends.classify.body import clean
from vlmbatch.backends.classify.row import Row
from vlmbatch.backends.classify.token_limits import UNKNOWN as UNKNOWN_LIMITS
from vlmbatch.backends.classify.token_limits import TokenLimits
from vlmbatch.errors import BadAnswerError, Change, RejectedError, TransientError
from vlmbatch.finish_reasons import ENDED, UNKNOWN, is_cut, word_of

_RULES = frozenset(" \t\n-_=.*~|+#:/\\<>\u00b7\u2013\u2014\u2026\u2500\u2501\u2502\u2550")
_LONGEST_UNIT = 400

FINISHES: tuple[Row, ...] = (
    Row(
        "filtered",
        # Gemini's own words are unchanged on its OpenAI route; refusal is Anthropic's, sensitive Zhipu's
        r"^((content_)?(filter(ed)?|moderation)|(image_)?(safety|prohibited_content|recitation)|blocklist"
        r"|blocked|spii|sensitive|refusal|refused|guardrails?|model_armor|error_toxic|language)(_|$)",
        RejectedError,
        "refused",
        "a content filter stopped the answer",
    ),
    Row(
        "aborted",
        r"^(abort(ed)?|cancell?ed|cancel|user_cancel|user_stopped|interrupted|time(d_|_)?out|time_limit"
        r"|insufficient_system_resources?|network_error|preempted|model_unloaded|incomplete|not_finished)$",
        TransientError,
        "server_error",
        "the engine aborted the answer",
    ),
    Row(
        "failed",
        r"^(failed|failure|((internal|server|engine|model|generation|unknown)_)?error"
        r"|malformed_(model_output|response))$",
        TransientError,
        "bad_response",
        "the engine failed while it answered",
    ),
    Row(
        "loaded",
        r"^(un)?load$",
        TransientError,
        "bad_response",
        "the engine only loaded or unloaded the model",
    ),
    Row(
        "tool",
        r"^(((malformed|unexpected|too_many)_)?(tool_calls?|tool_use|function_calls?)|pause_turn)$",
        BadAnswerError,
        "bad_response",
        "the model called a tool",
    ),
)
"""Finish reasons of unusable answers, in the spelling of `word_of`."""


def check_answer(
    text: str | None,
    finish_reason: str | None,
    *,
    done: bool | None = None,
    thinking: str | None = None,
    refusal: str | None = None,
    accept: frozenset[str] = frozenset(),
    limits: TokenLimits = UNKNOWN_LIMITS,
) -> tuple[str, ...]:
    """Check that the answer ended by itself, is not empty and not a loop; return warnings.

    An answer with text is complete, unless its finish reason is a known word for anything else. `done` is
    Ollama's end mark, None for an API without one. `refusal` is OpenAI's field of that name. `accept` names
    the flaws to accept: `length` (cut by a token limit), `loop` and `empty`; each accepted flaw is a
    warning, and so is an unknown finish reason. `limits` say what cut the answer.

    Raises:
        BadAnswerError: empty, truncated or degenerate; `partial` is the text, `change` is for the retry.
        RejectedError: a content filter or the model refuses.
        TransientError: the engine aborted the answer, or the reply has neither text nor a finish reason.
    """
    answer, reason = text or "", finish_reason or ""
    word = word_of(reason)
    if refusal:
        raise RejectedError(f"the model refuses: {clean(refusal)}", kind="refused")
    for row in () if word in ENDED else FINISHES:
        if row.fits(200, word):
            details = f": {clean(answer)}" if row.name == "failed" and answer.strip() else ""
            raise row.error(row.says + details, kind=row.kind, change=row.change, partial=answer or None)
    flaws = _flaws(answer, word, done, bool((thinking or "").strip()), limits)
    for flaw, error in flaws.items():
        if flaw not in accept:
            raise error
    warnings = tuple(limits.accepted if flaw == "length" else _ACCEPTED[flaw] for flaw in flaws)
    if word in ENDED or word in _LOOPED or is_cut(word) or (word in UNKNOWN and done is not None):
        return warnings
    if not answer.strip():
        ending = f"with {clean(reason)!r}" if reason else "without a finish reason"
        raise TransientError(f"the answer is empty and ended {ending}", kind="bad_response")
    if word in UNKNOWN:
        return warnings
    return (*warnings, f"the answer ended with {clean(reason)!r}, an unknown finish reason")


_LOOPED = ("repetition", "repetition_detected")
_ACCEPTED = {
    "loop": "the answer was accepted although it repeats itself",
    "empty": "the answer was accepted although it is empty",
}


def _flaws(
    answer: str, word: str, done: bool | None, thought: bool, limits: TokenLimits
) -> dict[str, BadAnswerError]:
    """The flaws of an answer, named like the values of --accept, the worst first."""
    cut = is_cut(word)
    if done is False:
        message = "the answer broke off without its end mark; Ollama does that if a model repeats itself"
        flaw = "loop" if answer.strip() else "empty"
        return {flaw: BadAnswerError(message, kind="degenerate", partial=answer or None)}
    if word in _LOOPED:
        message = "the engine stopped an answer that repeated itself"
        return {"loop": BadAnswerError(message, kind="degenerate", partial=answer or None)}
    if not answer.strip():
        no_room = cut and limits.overflow is not None and not thought
        return {"empty": _cut(answer, limits, loops=False) if no_room else _empty(thought, cut)}
    loops = repeats(answer)
    flaws = {}
    if cut:
        flaws["length"] = _cut(answer, limits, loops=loops)
    if loops:
        flaws["loop"] = BadAnswerError("the answer repeats itself", kind="degenerate", partial=answer)
    return flaws


def _cut(answer: str, limits: TokenLimits, *, loops: bool) -> BadAnswerError:
    """The error for an answer that a token limit cut; a smaller picture leaves more room in the context."""
    if loops:
        return BadAnswerError(
            f"the answer repeats itself up to {limits.name}", kind="truncated", partial=answer
        )
    change: Change = "shrink" if limits.may_be_full else "reseed"
    error = BadAnswerError(limits.told, kind="truncated", partial=answer or None, change=change)
    error.overflow = limits.overflow
    return error


def _empty(thought: bool, cut: bool) -> BadAnswerError:
    """The error for an answer without text, also a cut one: a model may think without showing it."""
    if thought and cut:
        message = (
            "the model used all of --max-tokens for thinking and gave no answer; set a larger --max-tokens"
        )
    elif thought:
        message = "the model wrote only thinking and no answer"
    elif cut:
        message = (
            "the answer reached --max-tokens before its first word; set a larger --max-tokens "
            "(hidden thinking may use all of it)"
        )
    else:
        return BadAnswerError("the model gave no answer", kind="empty", change="reseed")
    return BadAnswerError(message, kind="empty", change="no_thinking")


def repeats(text: str) -> bool:
    """Whether `text` ends in a loop, or is a single repeated character.

    A loop is the same words 31 times in a row, or 10 times and more than 200 characters. Repeated lines need
    31 times, since tables and lists have equal rows, unless each is a sentence. Ruled lines (`-----`,
    `| | |`) are not a loop. A text that ends in a closing bracket is not a loop, so JSON never is.
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
    """Whether the last `length` characters are repetitions of the last `size` characters."""
    tail = text[-length:]
    return len(tail) == length and tail[size:] == tail[:-size]


def _loop_length(unit: str) -> int:
    """The number of characters at which repetitions of `unit` are a loop."""
    sentence = len(set(re.findall(r"[^\W\d_]{2,}", unit))) >= 5
    if "\n" in unit and not sentence:
        return 31 * len(unit)
    return min(31 * len(unit), max(200, 10 * len(unit)))
