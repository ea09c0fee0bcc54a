"""Finds secrets in texts, also if they are URL-encoded, in base64, escaped, in another case, or cut short."""

import html
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache

MASK = "[key]"
LEAST_KEY = 8
"""Characters; the other forms of a shorter secret would match ordinary text by chance."""
PREFIX = 10
"""Some servers repeat the first characters of a key, and then asterisks; this many give the key away."""
_MORE_OF_A_KEY = r"[\w*.\u2026\u2022~%+/=-]*"


@lru_cache(maxsize=64)
def pattern_of(keys: frozenset[str], others: frozenset[str] = frozenset()) -> re.Pattern[str]:
    """A pattern of these keys in all their forms, and of the other secrets as they are.

    Each key has LEAST_KEY characters or more.
    """
    found = [(len(each), f"(?i:{_spelled(each)})", _firsts(each)) for each in keys]
    found += [(len(each), re.escape(each), re.escape(each[0])) for each in others]
    found += [(len(core), _in_base64(core), _firsts(core)) for each in keys for core in _cores(each)]
    found += [
        (0, f"(?i:{_spelled(each[:PREFIX])}){_MORE_OF_A_KEY}", _firsts(each))
        for each in keys
        if len(each) > PREFIX
    ]
    if not found:
        return re.compile(r"(?!)")
    found.sort(key=lambda each: -each[0])
    firsts = "".join({first for _, _, first in found})
    return re.compile(f"(?=[{firsts}])(?:{'|'.join(pattern for _, pattern, _ in found)})")


def _firsts(text: str) -> str:
    """The characters with which a form of this text may begin, for a set; most text has none of them."""
    return "".join(map(re.escape, {text[0].lower(), text[0].upper(), "%", "\\", "&", "+", "-", "_"}))


def _spelled(text: str) -> str:
    """A pattern of this text, each character as it is, or escaped for a URL, JSON or HTML."""
    return "".join(map(_forms, text))


def _forms(character: str) -> str:
    in_url = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    utf16 = character.encode("utf-16-be", "surrogatepass").hex()
    in_json = "".join(rf"\\+u{utf16[at : at + 4]}" for at in range(0, len(utf16), 4))
    in_html = f"&#(?:{ord(character)}|x{ord(character):x});"
    forms = [re.escape(character), in_url, in_json, in_html]
    if not character.isalnum():
        forms += [rf"\\+{re.escape(character)}", re.escape(html.escape(character))]
    if character == " ":
        forms.append(r"\+")
    return f"(?:{'|'.join(forms)})"


def _cores(key: str) -> Iterable[str]:
    """The characters of base64 that depend on this key only, for each of the three offsets of the key."""
    data = key.encode("utf-8", "surrogatepass")
    for before in range(3):
        whole = b64encode(bytes(before) + data).decode("ascii")
        yield whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]


def _in_base64(core: str) -> str:
    """A pattern of this part of a text in base64, in its standard form or in the form for URLs."""
    special = {"+": r"(?:[+-]|%2[bB]|\\+u002[bB])", "/": r"(?:[/_]|%2[fF]|\\+/|\\+u002[fF])"}
    return "".join(special.get(each, each) for each in core) + r"[\w+/-]?(?:={1,2}|(?:%3[dD]){1,2})?"
