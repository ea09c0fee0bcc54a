"""The declaration of one option, and the parsers of typed texts. This module does not list the options."""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from vlmbatch.errors import ConfigError

AUTO = -1
"""The value of an option that is set to `auto`."""
LONGEST_S = 10 * 365 * 86_400
"""The longest duration of an option, in seconds; timers need a bound."""
ALL_OPTIONS = "; for all options type: vlmbatch run --help"
LARGEST = 2**63 - 1
"""The largest whole number of an option."""
FLAWS = ("length", "loop")
"""The flaws of an answer that --accept names."""
Section = Literal[
    "Options to know first",
    "Service",
    "Queue",
    "Question and answer",
    "Images",
    "Output",
    "Endpoint",
    "Speed and limits",
    "When something fails",
    "Try without a run",
    "Display and reports",
]
"""The headings of the options in the help, in their order there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSpec:
    """How one option is shown and read. `parse` turns a typed text into the value.

    `help` describes the flag that changes the default, such as --no-canary. The value is one of `choices`, or
    some of `words` with commas between them.

    Its environment variable may hold several values: one per line with `split_lines`, else one per word.
    `harmless` says whether ./vlmbatch.toml may set it, since that file may be part of a downloaded folder; a
    function decides by the value. `section` is its heading in the help, if it is not that of its group.
    """

    help: str
    section: Section | None = None
    short: str | None = None
    metavar: str | None = None
    parse: Callable[[str], object] | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    shown_default: str | None = None
    secret: bool = False
    split_lines: bool = False
    harmless: bool | Callable[[Any], bool] = False

    def is_harmless(self, value: object) -> bool:
        """Whether ./vlmbatch.toml may set this value."""
        return self.harmless(value) if callable(self.harmless) else self.harmless


def option(
    default: Any,
    help: str,  # noqa: A002  # the field's name, here and in typer
    *,
    section: Section | None = None,
    short: str | None = None,
    metavar: str | None = None,
    parse: Callable[[str], object] | None = None,
    choices: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    shown_default: str | None = None,
    secret: bool = False,
    split_lines: bool = False,
    harmless: bool | Callable[[Any], bool] = False,
) -> Any:
    """Return a dataclass field with its OptionSpec in the metadata; no repr shows a secret field."""
    spec = OptionSpec(
        help=help,
        section=section,
        short=short,
        metavar=metavar,
        parse=parse,
        choices=choices,
        words=words,
        shown_default=shown_default,
        secret=secret,
        split_lines=split_lines,
        harmless=harmless,
    )
    return field(default=default, repr=not secret, metadata={"option": spec})


def parse_whole(text: str) -> int:
    """Parse a whole number such as `7`."""
    if not re.fullmatch(r"\s*[-+]?\d{1,30}\s*", text):
        raise ValueError(f"{text!r} is not a whole number; write for example 7")
    return int(text)


def parse_number(text: str) -> float:
    """Parse a number such as `0.5`."""
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a number; write for example 0.5") from error


def parse_size(text: str) -> int:
    """Parse bytes from `500`, `20k`, `100MB` or `1.5 GiB`; k, M and G are powers of 1000, Ki etc. of 1024."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgG]?)(i?)[bB]?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a size; write for example 100MB")
    power = " kmg".index(match[2].lower() or " ")
    size = float(match[1]) * (1024 if match[3] else 1000) ** power
    if size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,}; write a smaller number")
    return int(size)


def parse_pixels(text: str) -> int:
    """Parse a number of pixels from `200000000`, `200M` or `200MP`."""
    return parse_size(re.sub(r"(?i)(mp|px|p)\s*$", lambda m: "M" if m[0].lower() == "mp" else "", text))


def parse_side(text: str) -> int:
    """Parse a number such as `768`; returns AUTO for `auto`."""
    if text.strip().lower() == "auto":
        return AUTO
    if not re.fullmatch(r"\s*-?\d{1,9}\s*", text):
        raise ValueError(f"{text!r} is not a number of pixels; write auto, or a number such as 768")
    return int(text)


def parse_duration(text: str) -> float:
    """Parse seconds from `90`, `90s`, `15m`, `2h` or `3d`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a duration; write for example 90, 15m, 2h or 3d")
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds > LONGEST_S:
        raise ValueError(f"{text!r} is longer than ten years; write a shorter duration")
    return seconds


def parse_clock(text: str) -> str:
    """Parse a time of day from `6:30` or `06:30`; returns `06:30`."""
    if not is_clock(text):
        raise ValueError(f"{text!r} is not a time of day; write for example 06:30")
    return text.strip().zfill(len("06:30"))


def is_clock(text: str) -> bool:
    """Whether the text is a time of day in hours and minutes."""
    return re.fullmatch(r"\s*([01]?\d|2[0-3]):([0-5]\d)\s*", text) is not None


def parse_concurrency(text: str) -> int | None:
    """Parse a number such as `8`; returns None for `auto`."""
    if text.strip().lower() == "auto":
        return None
    if not re.fullmatch(r"\s*\d{1,9}\s*", text):
        raise ValueError(f"{text!r} is not a number of requests; write auto, or a number such as 8")
    return int(text)


def parse_accept(text: str) -> str:
    """Parse `length`, `loop` or both, separated by a comma; returns them in that order."""
    words = {word.strip() for word in text.split(",")} - {""}
    if not words <= set(FLAWS):
        raise ValueError(f"{text!r} is not known; write length, loop or length,loop")
    return ",".join(sorted(words))


def parse_failures(text: str) -> str:
    """Check that the text is a number or percentage such as `5` or `2.5%`; returns it as typed."""
    if not re.fullmatch(r"\d+|\d+(\.\d+)?%", text.strip()):
        raise ValueError(f"{text!r} is neither a number nor a percentage; write 5 or 1%")
    return text.strip()


def typed(name: str, kind: Any, spec: OptionSpec, value: object) -> object:
    """Convert the value of an option from a file or a program to the type of its field.

    A text is parsed as on the command line, one text becomes a list of one, and a path becomes a text. A
    table becomes JSON text, in its order.
    Raises ConfigError for a value of another type.
    """
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and (kind == tuple[str, ...] or NoneType in kinds):
        return None if NoneType in kinds else ()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping) and "JSON" in (spec.metavar or ""):
        value = _as_json(name, value)
    is_hidden = spec.secret or isinstance(value, (Mapping, list, tuple))  # a list may hold a key
    shown = type(value).__name__ if is_hidden else repr(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if spec.parse is not None and (isinstance(value, str) or (is_number and str in kinds)):
        try:
            return spec.parse(str(value))
        except ValueError as error:
            raise ConfigError(f"{flag(name)}: {error}") from error
    if kind == tuple[str, ...]:
        several = [value] if isinstance(value, str) else value
        good = isinstance(several, Sequence) and all(isinstance(v, str) for v in several)
        if isinstance(value, (list, tuple)):
            shown = " and ".join(sorted({type(v).__name__ for v in value if not isinstance(v, str)}))
        require(good, f"{flag(name)} takes texts, not {shown}")
        return tuple(several)  # type: ignore[arg-type]  # a sequence, as just checked
    if float in kinds:
        require(
            is_number and abs(value) <= LARGEST,  # type: ignore[arg-type]  # a number, as just checked
            f"{flag(name)} takes a number, not {shown}",
        )
        return float(value)  # type: ignore[arg-type]  # 0 and 0.0 must give the same run digest
    if int in kinds:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, bool if bool in kinds else str)
    require(good, f"{flag(name)} takes {_WORDS[_word(kinds)]}, not {shown}")
    is_long = isinstance(value, int) and abs(value) > LARGEST  # engines read such a number as 64 bits
    require(not is_long, f"{flag(name)} takes a number of at most {LARGEST:,}; write a smaller one")
    return value


def _as_json(name: str, value: Mapping[str, object]) -> str:
    """Write a table as JSON text; raises ConfigError for a value that JSON lacks, such as a date in TOML."""
    try:
        return json.dumps(dict(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{flag(name)} has a value that JSON cannot hold: {error}; write it as JSON text"
        ) from error


_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def _word(kinds: tuple[Any, ...]) -> type:
    return next((kind for kind in (float, int, bool) if kind in kinds), str)


def flag(name: str) -> str:
    """Return the long flag of a name: `--max-size` for `max_size`."""
    return "--" + name.replace("_", "-")


def nearest(name: str, known: Iterable[str], otherwise: str = ALL_OPTIONS) -> str:
    """The end of a message about an unknown name: `; did you mean prompt?`, or `otherwise`."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else otherwise


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with this message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_url(url: str, origin: str) -> None:
    """Raise ConfigError unless `url` is http or https with a host that can be printed and a valid port."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
        _ = parts.port
    except ValueError:
        good = False
    # everything before an @ may be a password, even in a malformed URL
    shown = re.split("[?#]", url.rpartition("@")[2])[0]
    several = re.search(r"[,;\s]https?://", url) is not None
    require(not several, f"{origin} {shown} holds several URLs; write {origin} before each URL")
    no_url = "is neither a URL nor a file that exists" if re.fullmatch(r"[\w./-]+", url) else "is not a URL"
    require(good, f"{origin} {shown} {no_url}; write for example {_with_scheme(shown)}")
    in_path = "@" in parts.path
    require(not in_path, f"{origin} of {shown} has a slash in its user or password; write it as %2F")


def _with_scheme(text: str) -> str:
    """The URL that is meant by `localhost:8000` or `gpu1`; else an example."""
    host = re.fullmatch(r"[\w.-]+(:\d{1,5})?(/\S*)?", text, re.ASCII)
    if host is None:
        return "http://127.0.0.1:8000/v1"
    return f"http://{text}" + ("" if host[2] or host[1] == ":11434" else "/v1")


def redact(url: str) -> str:
    """Return the URL without user, password, query and fragment, for records and messages."""
    return re.split("[?#]", re.sub(r"(?<=//)[^/?#]*@", "", url))[0]


def redact_place(place: str) -> str:
    """A folder as it is; a URL without its secrets, or only its scheme if it is unclear where they end."""
    scheme, separator, rest = place.partition("://")
    if not separator:
        return place
    is_clear = "@" not in re.sub(r"^[^/?#@]*@", "", rest)
    return redact(place) if is_clear else f"{scheme}://..."
