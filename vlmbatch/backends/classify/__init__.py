"""Classifies replies of endpoints: the table in rows.py gives the exception, and its class the decision.

It uses no HTTP library; a backend passes a status, a text and headers, or the parts of an answer.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from vlmbatch.backends.classify.answer import check_answer
from vlmbatch.backends.classify.body import clean, error_in, partial_in, read
from vlmbatch.backends.classify.overflow import overflow_in
from vlmbatch.backends.classify.rows import REPLIES
from vlmbatch.config.spec import redact
from vlmbatch.errors import BackendError, UnavailableError
from vlmbatch.records import Usage

__all__ = ["check_answer", "classify_error", "error_in", "retry_after"]

LONGEST_WAIT_S = 900.0
REPORTED = "the endpoint reports an error"
"""Of an error in a good reply whose words and code are in no other row."""
MOST_TEXT = 4000
"""Characters of a reply that are searched for numbers."""
_UNITS = {"ms": 0.001, "mil": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hou": 3600}
"""Seconds of each unit, by its first three letters."""
_DURATION = re.compile(
    r"(\d{1,9}(?:\.\d{1,12})?)\s?(ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h)(?![a-z])",
    re.IGNORECASE,
)
# Gemini: "Please retry in 45.3s." and "retryDelay": "45s"; OpenAI and Groq: "Please try again in 7m12.5s";
# Azure: "Please retry after 10 seconds"
_WAIT = re.compile(
    r"(?:\b(?:retry|again) (?:in|after)|retryDelay\\?\":)\s?\\?\"?"
    r"((?:\d[\d.]{0,25}\s?[a-z]{1,12}[,\s]{0,2}(?:and\s)?){1,4})",
    re.IGNORECASE,
)


def classify_error(
    status: int, text: str, headers: Mapping[str, str], masked: Callable[[str], str] = str
) -> BackendError:
    """The error for a reply, which the caller raises.

    It covers every status other than 2xx, and a 2xx whose body is not the expected JSON or in which
    `error_in` finds an error. `masked` hides the secrets in the reply's text.
    """
    body = read(text)
    # OpenRouter and some llama.cpp proxies put the real status into the body of a 200
    good = 200 <= status < 300
    meant = status if not good else 200 if body.code is None else body.code
    # a 200 without an error object may be an answer, whose text must not be matched
    haystack = body.haystack if body.is_error or not good else ""
    row = next(row for row in REPLIES if row.fits(meant, haystack))
    says = REPORTED if row is REPLIES[-1] and body.is_error else row.says
    told = clean(masked(_redirect_target(status, headers) or body.message))
    waits = row.error is UnavailableError
    error = row.error(
        _sentence(says, row.hint, status, told),
        kind=row.kind,
        retry_after=retry_after(headers) or (wait_in(text) if waits else None),
        change=row.change,
        partial=(partial_in(text) if good else "") or None,
    )
    error.status, error.told, error.marks, error.by_status = meant, told, body.marks, not row.pattern
    error.overflow = (
        overflow_in(body.message[:MOST_TEXT], text[:MOST_TEXT]) if row.kind == "context" else None
    )
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The requested wait in seconds, above 0 and at most 900; None if there is no valid one."""
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    waits = (
        _seconds(lowered.get("retry-after-ms"), 1000),
        _seconds(lowered.get("retry-after"), 1),
        _seconds_until(lowered.get("retry-after")),
    )
    wait = next((w for w in waits if w is not None and math.isfinite(w) and w > 0), None)
    return None if wait is None else min(wait, LONGEST_WAIT_S)


def wait_in(text: str) -> float | None:
    """The wait in seconds that a text requests, above 0 and at most 900; None if it requests none."""
    found = _WAIT.search(text[:20_000])
    parts = _DURATION.findall(found[1]) if found else []
    wait = sum(float(amount) * _UNITS[unit.lower()[:3]] for amount, unit in parts)
    return min(wait, LONGEST_WAIT_S) if wait > 0 else None


def _seconds(text: str | None, parts: int) -> float | None:
    try:
        return float(text or "") / parts
    except ValueError:
        return None


def _seconds_until(date: str | None) -> float | None:
    """The HTTP-date form of RFC 9110, section 10.2.3."""
    try:
        when = parsedate_to_datetime(date or "")
    except (ValueError, OverflowError):  # OverflowError: a year or a zone of twenty digits
        return None
    if when.tzinfo is None:  # "-0000" parses to a time without a zone
        when = when.replace(tzinfo=UTC)
    return (when - datetime.now(UTC)).total_seconds()


def _redirect_target(status: int, headers: Mapping[str, str]) -> str:
    """The target of a redirect, for a message; empty for any other reply."""
    target = next((value for name, value in headers.items() if name.lower() == "location"), None)
    return f"to {redact(target)}" if target is not None and 300 <= status < 400 else ""


def _sentence(says: str, hint: str, status: int, text: str) -> str:
    details = f": {text} (HTTP {status})" if text else f" (HTTP {status} without a text)"
    return says + details + (f"; {hint}" if hint else "")


@contextmanager
def attach_cost(usage: Usage, cost: float | None = None, *, owes_cost: bool = False) -> Iterator[None]:
    """Add the usage and cost of an answer to an error inside the ``with``: a useless answer costs too."""
    try:
        yield
    except BackendError as error:
        error.cost, error.owes_cost = cost, owes_cost
        error.tokens = (usage.input_tokens, usage.output_tokens)
        raise
