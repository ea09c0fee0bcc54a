"""Finds the parameters that an endpoint refuses by name, and the limits that it states for the answer."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from vlmbatch.errors import BackendError, FailureKind
from vlmbatch.records import Generation

_REFUSING = (400, 422)
"""With these statuses, any sentence that names a parameter may refuse it."""
_OTHERS = (200, 403, 404, 405, 406, 409, 500, 501)
"""With these, the sentence must also say that something is refused: a crash may name a parameter, too. OpenAI
refuses logprobs with 403, and some gateways send each error with 200."""
_OF_A_PARAMETER: frozenset[FailureKind] = frozenset(
    ("rejected", "bad_config", "wrong_url", "auth", "server_error", "bad_response")
)
"""The kinds of errors that a refused parameter has."""
_CONTEXT = re.compile(r"context|model.?len", re.IGNORECASE)
"""A full context is no refusal of max_tokens."""
_REFUSES = re.compile(
    r"(un|not |n't )(support|recogni|permit|allow|accept|expect|known|implement|enabl|availabl)\w*"
    r"|unknown|invalid|deprecated"
    r"|\b(must|should|cannot|has to|needs? to)\b|at (least|most)|forbidden|extra (inputs|fields)",
    re.IGNORECASE,
)
_ONLY_STREAMS = re.compile(
    r"only ((supports?|accepts?|allows?) )?(the )?stream|\bstream\w*\W.{0,40}\b(true|required|mandatory)\b"
    r"|\b(enable|requires?) (the )?stream|\bfor non-?stream"
    r"|\bnon[- ]?stream\w*.{0,60}\b(not|un)[- ]?(support|allow|available|implement|permit|accept|enabl)"
    r"|\b(not|un)[- ]?(support|allow|implement|permit|accept)\w*.{0,40}\bnon[- ]?stream",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"unsupported parameter|not (supported|permitted|recogni\w+|known)|unknown|unrecogni|unexpected"
    r"|deprecated|extra (inputs|fields)|max_completion_tokens",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LEAST = re.compile(r"(?:at least|>=|\u2265|minimum\D{0,20}|(?:no|not) less than|or equal to) ?(\d{1,6})\b")
_MORE_THAN = re.compile(r"(?:greater|larger|more) than (\d{1,6})\b")
_MOST = re.compile(
    r"(?:(?<!not )at most|<=|\u2264|maximum\D{0,20}|(?:no|not) (?:more|larger|greater) than"
    r"|less than or equal to|exceed|up to) ?(\d{1,6})\b"
)
_RANGE = re.compile(r"between (\d{1,6}) and (\d{1,6})\b|\[(\d{1,6}), ?(\d{1,6})\]")
_TOO_SMALL = re.compile(r"below_min|too (small|low|few)|below (the )?minimum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Omissions:
    """The parameters that requests leave out, since the endpoint has refused them. Each is tried once.

    `given` are parameters of the user, which are never left out. `kept` are parameters that a refusal
    named, but without which the endpoint still refused the request.
    """

    given: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()

    def after(self, sentence: str, optional: Mapping[str, Iterable[str]]) -> Self | None:
        """The omissions for the next attempt; None if the sentence names no other parameter to leave out.

        `optional` are the parameters of the request, each with the names that a sentence may have for it.
        """
        more = _meant(sentence, optional) - self.given - self.kept - self.refused
        return replace(self, refused=self.refused | more) if more else None

    def restored(self, first: Self, sentence: str, optional: Mapping[str, Iterable[str]]) -> Self:
        """The omissions after a final refusal.

        Parameters that were left out since `first`, but are still named in it, are sent again.
        """
        named_still = _meant(sentence, optional) & (self.refused - first.refused)
        if not named_still:
            return self
        return replace(self, refused=self.refused - named_still, kept=self.kept | named_still)

    def warnings(self, generation: Generation) -> tuple[str, ...]:
        """Warnings about parameters that change an answer, and that its request lacked."""
        sent = {"temperature": generation.temperature, "seed": generation.seed}
        return tuple(
            f"sent without --{name}, which this model does not accept"
            for name, value in sent.items()
            if value is not None and name in self.refused - generation.given
        )


def _meant(sentence: str, optional: Mapping[str, Iterable[str]]) -> frozenset[str]:
    return frozenset(name for name, names in optional.items() if named(sentence, names))


def refusal_in(error: BackendError) -> str:
    """The endpoint's sentence if it may refuse a parameter; empty if the error means something else."""
    sentence = " ".join((error.told, *error.marks))
    if error.kind not in _OF_A_PARAMETER or _CONTEXT.search(sentence):
        return ""
    said = _REFUSES.search(error.told) or only_streams(error.told)
    refuses = error.status in _REFUSING or (error.status in _OTHERS and said)
    return sentence if refuses else ""


def named(sentence: str, names: Iterable[str]) -> frozenset[str]:
    """The names that the sentence has as a word, also in the form `top logprobs` or `topLogprobs`."""
    words = _CAMEL.sub("_", sentence).lower()
    return frozenset(name for name in names if re.search(_pattern(name), words))


def _pattern(name: str) -> str:
    spelt = re.escape(_CAMEL.sub("_", name).lower()).replace("_", r"[_\- ]?")
    return rf"(?<![a-z0-9_]){spelt}(?![a-z0-9_])"


def stated_range(sentence: str, sent: int) -> tuple[int | None, int | None]:
    """The smallest and the largest number that the sentence allows instead of `sent`; None if unstated.

    A number that allows `sent` does not count: it cannot be why `sent` was refused.
    """
    words = sentence.lower()
    between = _RANGE.search(words)
    if between is not None:
        low, high = (int(number) for number in between.groups() if number is not None)
        return (low if low > sent else None), (high if high < sent else None)
    least = _number(_LEAST, words)
    beyond = _number(_MORE_THAN, words)
    if least is None and beyond is not None:
        least = beyond + 1
    most = _number(_MOST, words)
    return (
        least if least is not None and least > sent else None,
        most if most is not None and 0 < most < sent else None,
    )


def only_streams(sentence: str) -> bool:
    """Whether the sentence says that the server answers only as a stream."""
    return _ONLY_STREAMS.search(sentence) is not None


def is_too_small(sentence: str) -> bool:
    """Whether the sentence says that a number is too small, perhaps without the number to send."""
    return _TOO_SMALL.search(sentence.lower()) is not None


def is_unknown(sentence: str) -> bool:
    """Whether the sentence says that the server does not know or no longer supports a parameter."""
    return _UNKNOWN.search(sentence) is not None


def _number(pattern: re.Pattern[str], words: str) -> int | None:
    found = pattern.search(words)
    return None if found is None else int(found[1])
