"""Finds out what cut an answer: --max-tokens, the model's context, or a limit of the endpoint."""

from dataclasses import dataclass

from vlmbatch.errors import Overflow
from vlmbatch.records import Usage

SLACK = 2
"""Servers differ by this many tokens in what they count: the end mark, or the token that did not fit."""
HINT = "set a smaller --max-size or a larger context"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """The tokens of an answer that was cut, and the limits that may have cut it.

    `max_tokens` is the limit that was sent. `context` is the model's context in tokens, None if unknown.
    """

    usage: Usage
    max_tokens: int
    context: int | None = None

    @property
    def ended_early(self) -> bool:
        """Whether the answer ended before --max-tokens; False if the endpoint does not count tokens."""
        return 0 < self.usage.output_tokens < self.max_tokens - (0 if self.is_full else SLACK)

    @property
    def is_full(self) -> bool:
        """Whether picture, prompt and answer fill the context."""
        return self.context is not None and self._total >= self.context - SLACK

    @property
    def may_be_full(self) -> bool:
        """Whether the context may have cut the answer, so that a smaller picture may help."""
        return self.ended_early and (self.context is None or self.is_full)

    @property
    def overflow(self) -> Overflow | None:
        """The request and the context that it fills; None if the context is unknown or did not cut it."""
        if self.context is None or not (self.ended_early and self.is_full):
            return None
        context = max(self.context, self._total)
        answer = max(context // 4, 2 * self.usage.output_tokens)
        return Overflow(
            input_tokens=self.usage.input_tokens,
            context=context,
            output_tokens=min(self.max_tokens, answer, context * 3 // 4),
        )

    @property
    def name(self) -> str:
        """The limit that cut the answer."""
        if not self.ended_early:
            return "the limit of --max-tokens"
        return "the end of the context" if self.is_full else "a limit of the endpoint"

    @property
    def told(self) -> str:
        """What cut the answer, for a message."""
        read, written = self.usage.input_tokens, self.usage.output_tokens
        if not self.ended_early:
            return "the answer is longer than --max-tokens allows; set a larger --max-tokens"
        if self.is_full:
            context = max(self.context or 0, self._total)
            return (
                f"the context of {context:,} tokens is full: {read:,} for picture and prompt, "
                f"{written:,} for the answer; {HINT}"
            )
        most = f"the {self.max_tokens:,} of --max-tokens"
        cut = f"the endpoint cut the answer after {written:,} tokens, before {most}"
        if self.may_be_full:
            return f"{cut}; if its context is full ({read:,} tokens for picture and prompt), {HINT}"
        return f"{cut}, although its context has {self.context:,} tokens; look for another limit there"

    @property
    def accepted(self) -> str:
        """The warning of an answer that was accepted although it was cut."""
        if not self.ended_early:
            return "the answer was accepted although --max-tokens cut it"
        by = (
            f"the context of {max(self.context or 0, self._total):,} tokens"
            if self.is_full
            else "the endpoint"
        )
        return f"the answer was accepted although {by} cut it after {self.usage.output_tokens:,} tokens"

    @property
    def _total(self) -> int:
        return self.usage.input_tokens + self.usage.output_tokens


UNKNOWN = TokenLimits(usage=Usage(), max_tokens=0)
"""No tokens are known: --max-tokens counts as the limit."""
