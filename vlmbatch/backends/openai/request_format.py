"""The names and values of a request's parameters; they change with what a server refuses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from vlmbatch.backends.classify.refusals import (
    Omissions,
    is_too_small,
    is_unknown,
    named,
    only_streams,
    refusal_in,
    stated_range,
)
from vlmbatch.config import RunConfig
from vlmbatch.config.given import TOKEN_LIMITS, extra_arguments, given_names
from vlmbatch.errors import BackendError
from vlmbatch.records import Generation

_THINKING = ("enable_thinking", "thinking")
_MORE_TOKENS = 64
"""The limit of a short answer if a server says that the limit is too small, but not what it accepts."""


def _is_own(generation: Generation) -> bool:
    """Whether the user chose the limit of the answer."""
    return "max_tokens" in generation.given


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimit:
    """How the limit of an answer is sent; a --max-tokens of the user is neither changed nor left out.

    `least` and `most` are the numbers that the server accepts, as far as it has stated them.
    """

    name: str = "max_tokens"
    least: int = 0
    most: int | None = None
    is_renamed: bool = False
    is_refused: bool = False
    """The server knows no limit under either name."""

    def value(self, generation: Generation) -> int:
        """The number to send."""
        if _is_own(generation):
            return generation.max_tokens
        raised = max(generation.max_tokens, self.least)
        return raised if self.most is None else min(raised, self.most)

    def after(self, sentence: str, generation: Generation) -> Self | None:
        """The limit for the next attempt; None if nothing is left to try."""
        sent, is_own = self.value(generation), _is_own(generation)
        least, most = stated_range(sentence, sent)
        if least is None and is_too_small(sentence) and sent < _MORE_TOKENS:
            least = _MORE_TOKENS
        if least is not None or most is not None:
            if is_own or (self.least if least is not None else self.most):
                return None
            return replace(self, least=least or self.least, most=most or self.most)
        if not self.is_renamed and (not is_own or is_unknown(sentence)):
            other = "max_completion_tokens" if self.name == "max_tokens" else "max_tokens"
            return replace(self, name=other, is_renamed=True)
        return None if is_own or self.is_refused else replace(self, is_refused=True)

    def warnings(self, generation: Generation) -> tuple[str, ...]:
        """Warnings about a request with these options."""
        if self.is_refused:
            return ("sent without --max-tokens, which this model does not accept",)
        if self.value(generation) < generation.max_tokens:
            return (f"sent with --max-tokens {self.most}, the most that this model accepts",)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFormat:
    """The parameters that vlmbatch adds by itself, and their names.

    A server may refuse a parameter that another requires: api.openai.com accepts a temperature for some
    models and answers 400 for others, and strict servers refuse unknown parameters. A list of models would
    soon be outdated, so the format adapts to the refusals. Options of the user are never left out or changed.

    `no_thinking` has the parameters that turn thinking off, and `arguments` those that each request to this
    type of server has. `left_out` are parameters that the user leaves out.
    """

    limit: TokenLimit = TokenLimit()
    no_thinking: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    omissions: Omissions = Omissions()
    has_detail: bool = False
    """Whether the server requires the detail of a picture."""
    streams: bool = False
    """Whether the server answers only as a stream."""
    is_settled: bool = False
    """Whether a change of the limit had no effect: it is not changed any more."""

    def of_user(self, config: RunConfig) -> Self:
        """This format with what the user gave and left out."""
        given, extra = given_names(config), extra_arguments(config)
        return replace(
            self,
            omissions=Omissions(given=given),
            left_out=frozenset(name for name, value in extra.items() if value is None),
        )

    def parameters(self, generation: Generation) -> dict[str, Any]:
        """The parameters of a request's body around its messages."""
        sent = {
            name: value
            for name, value in self._optional(generation).items()
            if name not in (self.omissions.refused - generation.given) | self.left_out
        }
        if not self.limit.is_refused and self.left_out.isdisjoint(TOKEN_LIMITS):
            sent[self.limit.name] = self.limit.value(generation)
        return sent

    def picture(self, url: str) -> dict[str, Any]:
        """The part of a message for the picture at this URL."""
        detail = {"detail": "auto"} if self.has_detail else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}

    def after_refusal(self, error: BackendError, generation: Generation) -> Self | None:
        """The format for the next attempt; None if this error refuses nothing that can be changed."""
        sentence = refusal_in(error)
        if only_streams(sentence) and not self.streams and "stream" not in self.omissions.given:
            return replace(self, streams=True)
        about_detail = named(sentence, ("detail",)) and named(sentence, ("image_url", "required"))
        if about_detail and not self.has_detail:
            return replace(self, has_detail=True)
        if named(sentence, TOKEN_LIMITS) and not self.is_settled:
            limit = self.limit.after(sentence, generation)
            if limit is not None:
                return replace(self, limit=limit)
        omissions = self.omissions.after(sentence, self._names(generation))
        return None if omissions is None else replace(self, omissions=omissions)

    def restored(self, first: Self, error: BackendError, generation: Generation) -> Self:
        """The format after a final refusal: changes since `first` that did not help are undone."""
        sentence = refusal_in(error)
        omissions = self.omissions.restored(first.omissions, sentence, self._names(generation))
        kept = self if omissions is self.omissions else replace(self, omissions=omissions)
        if self.limit != first.limit and named(sentence, TOKEN_LIMITS):
            return replace(kept, limit=first.limit, is_settled=True)
        return kept

    def warnings(self, generation: Generation) -> tuple[str, ...]:
        """Warnings about the parameters that the request lacked or changed."""
        return (*self.omissions.warnings(generation), *self.limit.warnings(generation))

    def _optional(self, generation: Generation) -> dict[str, Any]:
        """The parameters of a request that may be left out, without the token limit."""
        optional: dict[str, Any] = {
            "stream": self.streams,
            "temperature": generation.temperature,
            **self.arguments,
        }
        if generation.seed is not None:
            optional["seed"] = generation.seed
        if generation.thinking is False:
            optional |= self.no_thinking
        return optional

    def _names(self, generation: Generation) -> dict[str, Iterable[str]]:
        """The same parameters, each with its names in a refusal."""
        return {
            name: (name, *_THINKING) if name in self.no_thinking else (name,)
            for name in self._optional(generation)
            if name not in generation.given
        }
