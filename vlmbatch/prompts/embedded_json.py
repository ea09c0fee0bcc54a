"""Finds JSON inside other text: between the fences of Markdown, or between sentences."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(r'"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z)|[{}\[\]]', re.DOTALL)
"""A string, which may be cut at the end of the text, or a bracket."""
_BRACKET = re.compile(r"[{}\[\]]")
_PAIRS = {"}": "{", "]": "["}
_STARTS = re.compile(r'\{\s*"|\[\s*["{\[\d-]')
"""The start of JSON, in contrast to that of a remark in brackets."""


def candidates(text: str) -> Iterator[str]:
    """The parts of a text between two brackets that belong together, without the parts inside others.

    Where JSON begins and does not end, nothing that follows is a candidate: the text was cut, and a part of
    it is not the whole. The time grows with the length of the text.
    """
    ends = _ends(text)
    at = 0
    while (bracket := _BRACKET.search(text, at)) is not None:
        start = bracket.start()
        if start in ends:
            at = ends[start]
            yield text[start:at]
        elif _STARTS.match(text, start):
            return
        else:
            at = start + 1


def _ends(text: str) -> dict[int, int]:
    """Where each bracket that is closed ends, by its start. Quotes count only inside brackets."""
    ends: dict[int, int] = {}
    unclosed: list[int] = []
    at = 0
    while (token := (_TOKEN if unclosed else _BRACKET).search(text, at)) is not None:
        at = token.end()
        if token[0] in "{[":
            unclosed.append(token.start())
        elif token[0] in _PAIRS and unclosed and text[unclosed[-1]] == _PAIRS[token[0]]:
            ends[unclosed.pop()] = at
    return ends
