"""Takes the thinking of a model out of its answer, where a server leaves it in the text.

Thinking counts only at the start of an answer: a text may contain <think>, such as the text of a page about
HTML.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from vlmbatch.records import Request

_TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think", "mm:think", "longcat_think")
_PAIRS = (
    *((f"<{tag}>", f"</{tag}>") for tag in _TAGS),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("[think]", "[/think]"),  # Mistral
    ("<|start_thinking|>", "<|end_thinking|>"),  # Cohere
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<unused94>thought", "<unused95>"),  # MedGemma
)
"""The marks around thinking, in lower case."""
_CLOSERS = dict(_PAIRS)
_OPENING = re.compile("|".join(re.escape(opener) for opener, _ in _PAIRS), re.IGNORECASE)
_CLOSING = re.compile("|".join(re.escape(closer) for _, closer in _PAIRS), re.IGNORECASE)
# gpt-oss: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
_CHANNEL = re.compile(
    r"\s*(?:<\|start\|>\w*)?<\|channel\|>\s*(\w+)[^<]*<\|message\|>"
    r"((?:(?!<\|(?:start|end|channel|return|call)\|>).)*)(?:<\|(?:end|return|call)\|>)?",
    re.DOTALL,
)
# the same where the server has dropped the marks but not the words
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z\"'])(.*?)assistantfinal", re.DOTALL)
_STARTS = ("<", "[", "\u25c1")
"""Each mark begins with one of these characters."""
MOST_PARTS = 100
"""Thinking behind more thinking than this belongs to the answer."""
_QUOTES = frozenset("`'\"\u2018\u2019\u201c\u201d<>()[]")


class SplitText(NamedTuple):
    """What a model wrote: the answer and its thinking."""

    answer: str
    thinking: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning for the record if the answer is not the whole text."""
        size = len(self.thinking)
        return (
            (f"{size} characters of thinking were removed from the answer",) if self.thinking.strip() else ()
        )


def without_thinking(text: str, request: Request) -> SplitText:
    """The answer without its thinking, which is between marks at its start.

    The mark at the end may be missing: then all is thinking. The mark at the start may be missing: some
    chat templates put it into the prompt. A mark that the request mentions belongs to the answer.
    """
    channels = _final_channel(text)
    if channels is not None:
        return channels
    if not any(start in text for start in _STARTS):  # most answers
        return SplitText(text, "")
    asked = f"{request.prompt}\n{request.system or ''}".lower()
    thinking, rest = "", text
    for _ in range(MOST_PARTS):
        opening = _OPENING.match(rest.lstrip())
        if opening is None or opening[0].lower() in asked:
            break
        rest = rest.lstrip()
        end, after = _end_of(rest, opening)
        thinking, rest = thinking + rest[opening.end() : end], rest[after:]
    closing = _CLOSING.search(rest)
    if closing is not None and closing[0].lower() not in asked and _is_dangling(rest, closing):
        thinking, rest = thinking + rest[: closing.start()], rest[closing.end() :]
    return SplitText(text, "") if rest is text else SplitText(rest.strip(), thinking)


def _end_of(text: str, opening: re.Match[str]) -> tuple[int, int]:
    """Where the thinking ends, and where the text goes on after its mark."""
    opener = opening[0]
    closer = _CLOSERS[opener.lower()]
    mark = re.compile(f"{re.escape(opener)}|({re.escape(closer)})", re.IGNORECASE)
    depth, first = 1, (len(text), len(text))
    for each in mark.finditer(text, opening.end()):
        depth += -1 if each[1] else 1
        if depth == 0:
            return each.span()
        if each[1]:
            first = min(first, each.span())
    return first  # the thinking mentions its own marks, or has no end


def _is_dangling(text: str, closing: re.Match[str]) -> bool:
    """Whether this mark ends thinking that began in the prompt, and is not a word of the answer."""
    before, after = text[: closing.start()], text[closing.end() :]
    in_sentence = after[:1] == " " and after.lstrip()[:1].islower()
    if not before.strip():
        return not in_sentence
    is_code = before.count("```") % 2 == 1 or (before[-1] in _QUOTES and after[:1] in _QUOTES and after != "")
    if is_code or _OPENING.search(before) is not None:
        return False
    if before[-1] in "\r\n" or re.match(r"\r?\n\r?\n", after):
        return True
    if before[-1].isspace():
        if re.match(r"[A-Z0-9\[{]", after):  # in a sentence, a blank or a punctuation mark follows
            return True
        return before.rstrip()[-1] in ".!?\u2026\u3002" and not in_sentence
    return not in_sentence


def _final_channel(text: str) -> SplitText | None:
    """The text of gpt-oss's channel `final`, with the other channels as thinking; None without channels."""
    bare = _BARE_CHANNELS.match(text)
    if bare is not None:
        return SplitText(text[bare.end() :].strip(), bare[1])
    answer, thinking, end = "", "", 0
    for channel in _channels(text):
        if channel[1].lower() == "final":
            answer += channel[2]
        else:
            thinking += channel[2]
        end = channel.end()
    return SplitText((answer + text[end:]).strip(), thinking) if end else None


def _channels(text: str) -> Iterator[re.Match[str]]:
    """The channels at the start of the text, one after the other."""
    channel = _CHANNEL.match(text)
    while channel is not None:
        yield channel
        channel = _CHANNEL.match(text, channel.end())
