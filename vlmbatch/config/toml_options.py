"""Reads the options in the text of a settings file, and finds the line of a key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from vlmbatch.config import options
from vlmbatch.config.spec import flag, nearest, typed
from vlmbatch.config.text_file import decoded
from vlmbatch.errors import ConfigError

DEEPEST = 100
"""The most dots in a key: the memory that tomllib needs grows with their square."""
LONGEST_SHOWN = 60
MOST_TRIES = 10
"""The most lines that are tried as the line of a key; each needs time to parse the text before it."""
TOO_LONG = "a number of thousands of digits; write a smaller one"
_TEXT_OR_COMMENT = re.compile(
    r'"""(?:[^"\\]|\\.?|"(?!""))*(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.?)*"?'
    r"|'[^'\n]*'?"
    r"|#[^\n]*",
    re.DOTALL,
)
"""A text of TOML, also one that has no end, or a comment.

No repetition is possessive: Python before 3.11.5 loses its place after a possessive group with alternatives.
"""
_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
"""The end of a message of tomllib."""
_PROBE = "vlmbatch-line"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlace:
    """Where an option is set: the file as shown to the user, the key as it is written there, and the text."""

    file: str
    key: str
    text: str = field(repr=False)

    def __str__(self) -> str:
        """The file and the line: `./vlmbatch.toml line 3`; only the file if the line is not certain."""
        line = line_of(self.key, self.text)
        return self.file if line is None else f"{self.file} line {line}"


def options_in(data: bytes, shown: str) -> tuple[dict[str, Any], dict[str, KeyPlace]]:
    """The options in this content of a file, by their Python name, and the place of each.

    Raises:
        ConfigError: it is not TOML, has a key that is not an option, or has a value of another type.
    """
    text, table = parsed(data, shown, 'model = "qwen2.5vl"')
    values: dict[str, Any] = {}
    places: dict[str, KeyPlace] = {}
    known = {o.name: o for o in options()}
    for key, value in table.items():
        name = key.replace("-", "_")
        place = KeyPlace(file=shown, key=key, text=text)
        if name not in known:
            raise ConfigError(f"{place}: {_unknown(key, value)}")
        if name in values:
            raise ConfigError(f"{place}: {key} is also set as {places[name].key}; keep one of them")
        try:
            values[name] = typed(name, known[name].type, known[name].spec, value)
        except ConfigError as error:
            raise ConfigError(f"{place}: {key}{str(error).removeprefix(flag(name))}") from error
        except ValueError as error:  # a hexadecimal number cannot be shown
            raise ConfigError(f"{place}: {key} has {TOO_LONG}") from error
        places[name] = place
    return values, places


def _unknown(key: str, value: object) -> str:
    shown = key if len(key) <= LONGEST_SHOWN else f"{key[:LONGEST_SHOWN]}..."
    if isinstance(value, Mapping) or (isinstance(value, list) and value and isinstance(value[0], Mapping)):
        return f"the table {shown!r} is not known; write its keys at the top of the file, without [{shown}]"
    return f"the key {shown!r} is not known{nearest(shown, [o.key for o in options()])}"


def line_of(key: str, text: str) -> int | None:
    """The number of the line on which valid TOML sets this key of its top level; None if it is not certain.

    tomllib keeps no line numbers, but it checks each candidate: the text before the line must be valid TOML,
    so that the line is in no text, and a key that is added there must be a key of the top level.
    """
    import tomllib

    name = re.escape(key)
    start = re.compile(rf"""^[ \t]*(\[\[?[ \t]*)?(?:{name}|"{name}"|'{name}')[ \t]*[=.\]]""", re.MULTILINE)
    for found in islice(start.finditer(text), MOST_TRIES):
        before = text[: found.start()]
        try:
            is_top = _PROBE in tomllib.loads(f"{before}{_PROBE} = 0")
        except ValueError:
            continue
        if is_top or found[1]:
            return before.count("\n") + 1
    return None


def parsed(data: bytes, shown: str, example: str) -> tuple[str, dict[str, Any]]:
    """The text of a file of TOML, and its tables; `example` is a line of such a file, for a message.

    Raises:
        ConfigError: it is not TOML in UTF-8.
    """
    import tomllib  # only if there is a file, so that --help stays fast

    try:
        text = decoded(data)
        if _most_dots(text) > DEEPEST:
            raise ConfigError(f"{shown}: a key with more than {DEEPEST} dots is not an option; remove it")
        return text, tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{shown} is nested too deeply; write it with fewer levels") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_not_toml(str(error), shown, example)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown} is not a text in UTF-8: {error}; save it as UTF-8") from error
    except ValueError as error:
        raise ConfigError(f"{shown} has {TOO_LONG}") from error


def _not_toml(message: str, shown: str, example: str) -> str:
    """The message about a mistake in the syntax, with its line and column."""
    at = _AT_LINE.search(message)
    place = f"{shown} line {at[1]}, column {at[2]}" if at else shown
    reason = message[: at.start()] if at else message
    return f"{place}: this is not TOML: {reason}; texts need quotes, for example {example}"


def _most_dots(text: str) -> int:
    """The most dots in a key; a date or a number has at most one."""
    between = _TEXT_OR_COMMENT.sub("", text)
    return max(part.count(".") for part in re.split(r"[=,{}\[\]\n]", between))
