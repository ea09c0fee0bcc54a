"""The words with which engines say why an answer ended; each engine has its own words."""

import re
from collections.abc import Mapping
from functools import lru_cache

from vlmbatch.strict_json import whole

ENDED = frozenset(
    (
        *("stop", "stopped", "eos", "eos_token", "eos_found", "end", "ended", "end_turn", "end_of_turn"),
        *("end_of_text", "end_of_sequence", "stop_sequence", "stop_sequences", "stop_string", "stop_word"),
        *("stop_string_found", "stop_token", "stop_criteria_met", "complete", "completed", "finish"),
        *("finished", "done", "normal", "success", "word"),
    )
)
"""Words for a complete answer, in the spelling of `word_of`."""
UNKNOWN = frozenset(("", "null", "none", "unspecified"))
"""Words that say nothing."""
_CUT = re.compile(
    r"(^|_)length(_|$)|^max(imum)?(_\w+)?_tokens?(_|$)|token_limit|context_(window|limit)"
    r"|^(limit|output_limit|error_limit|num_predict|truncated)$"
)


def reason_in(value: object) -> str:
    """The finish reason in a reply: a text, or the `type` of SGLang's object; empty for anything else."""
    if isinstance(value, Mapping):
        value = value.get("type") or value.get("reason")
    return whole(value) if isinstance(value, str) else ""


def word_of(reason: str) -> str:
    """The reason in one spelling: `max_tokens` for `maxTokens` and `FinishReason.MAX_TOKENS`."""
    return _word_of(reason[:200])


@lru_cache(maxsize=64)
def _word_of(reason: str) -> str:
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", "_", reason)
    return re.sub(r"^((finish|stop)_)?reason_", "", parts.strip("_").lower())


def is_cut(reason: str) -> bool:
    """Whether this reason says that a limit of tokens cut the answer."""
    return _CUT.search(word_of(reason)) is not None
