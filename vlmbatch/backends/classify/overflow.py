"""Reads the numbers of a refusal: how many tokens the request has, and how many fit into the context."""

import re

from vlmbatch.errors import Overflow

_N = r"(\d[\d,]{0,14})"
_INPUT, _OUTPUT, _CONTEXT = (_N.replace("(", f"(?P<{name}>", 1) for name in ("input", "output", "context"))

_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        # llama-server, in the fields next to its message
        rf"n_prompt_tokens\W{{1,8}}{_INPUT}.{{1,40}}n_ctx\W{{1,8}}{_CONTEXT}",
        # vLLM, by version
        rf"length is (?:only )?{_CONTEXT}.{{1,60}}requested {_OUTPUT} output tok.{{1,60}}?{_INPUT} input tok",
        rf"too large: {_OUTPUT}\..{{1,60}}length is {_CONTEXT} tokens(?:.{{1,60}}?{_INPUT} input tokens)?",
        rf"passed {_INPUT} input tok.{{1,20}}requested {_OUTPUT} .{{1,60}}length is (?:only )?{_CONTEXT}",
        rf"max_tokens={_OUTPUT} cannot be greater than max_model_len={_CONTEXT}",
        # OpenAI, OpenRouter and SGLang
        rf"context length (?:is|of) {_CONTEXT}.{{1,120}}?{_INPUT} (?:in the mes|of text in|tokens from)"
        rf".{{1,90}}?{_OUTPUT} (?:in|tokens for) the (?:completion|output)",
        # Anthropic; text-generation-inference
        rf"{_INPUT} \+ {_OUTPUT} > {_CONTEXT}",
        rf"must be <= {_CONTEXT}\. Given: {_INPUT} .{{1,40}}?{_OUTPUT} ",
    )
)
_PICTURE = re.compile(rf"item with (?:length )?{_INPUT}\b.{{1,60}}encoder cache size {_CONTEXT}", re.DOTALL)
"""vLLM's limit for one picture, without prompt and answer."""
_CONTEXT_NAMED = re.compile(
    rf"(?:context|model|prompt) (?:length|size|window|limit)[^\d]{{0,40}}{_N}", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]{0,14}(?![\w-]|\.\d)")
_LEAST = 16
"""Smaller numbers in a message do not count as sizes of a context."""


def overflow_in(message: str, body: str = "") -> Overflow | None:
    """The numbers in a server's message about a full context; None if it has none, or unclear ones.

    `body` is the whole reply, in whose fields llama-server repeats the numbers.
    """
    at_least = "at least" in message
    if found := _PICTURE.search(message):
        return Overflow(input_tokens=_int(found["input"]), context=_int(found["context"]), output_tokens=0)
    for form in _FORMS:
        if found := form.search(message) or form.search(body):
            parts = found.groupdict()
            return Overflow(
                input_tokens=_int(parts.get("input") or "0"),
                context=_int(parts["context"]),
                output_tokens=_int(parts["output"]) if "output" in parts else None,
                at_least=at_least,
            )
    return _of_two(message, at_least)


def wants_too_many_tokens(message: str) -> bool:
    """Whether max_tokens alone fills the context, so that no picture is small enough."""
    found = overflow_in(message)
    return found is not None and (found.output_tokens or 0) >= found.context


def _of_two(message: str, at_least: bool) -> Overflow | None:
    """The numbers of a message in unknown words: of two sizes, the smaller one is that of the context."""
    sizes = sorted({size for text in _NUMBER.findall(message) if (size := _int(text)) >= _LEAST})
    named = _CONTEXT_NAMED.search(message)
    if "characters" in message:  # they are not tokens
        return None
    if len(sizes) == 2:
        context = sizes[0]
    elif named is not None:
        context = _int(named[1])
    else:
        return None
    larger = [size for size in sizes if size > context]
    return Overflow(input_tokens=larger[0], context=context, at_least=at_least) if larger else None


def _int(text: str) -> int:
    return int(text.replace(",", ""))
