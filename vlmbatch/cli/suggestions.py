"""What to type instead of a command that does not exist."""

import difflib
import os
import re
import shlex
from collections.abc import Sequence

from vlmbatch.cli.front import COMMANDS, HELP_FLAGS, OWN_FLAGS
from vlmbatch.observers import clean

OTHER_WORDS = {
    **dict.fromkeys(("ask", "batch", "caption", "describe", "generate", "infer", "label", "ocr"), "run"),
    **dict.fromkeys(("predict", "process", "start", "tag", "transcribe"), "run"),
    **dict.fromkeys(("check", "diagnose", "info", "ping", "status", "test"), "doctor"),
    **dict.fromkeys(("list", "ls", "ps", "tags"), "models"),
    **dict.fromkeys(("download", "fetch", "get", "install"), "pull"),
    **dict.fromkeys(("benchmark", "load", "loadtest", "measure", "perf", "speed", "stress"), "bench"),
    **dict.fromkeys(("server", "service", "http", "api", "listen", "daemon"), "serve"),
    **dict.fromkeys(("version", "v"), "--version"),
    **dict.fromkeys(("?", "usage", "options"), "--help"),
}
"""Words that other tools use for a command of vlmbatch."""
_SECRET_FLAG = re.compile(
    r"--?(?i:.*(key|token(?!s)|secret|pass|pwd|bearer|cred|auth|header|cookie|extra.body))|-[a-zA-Z]?H$"
)
_GLUED = re.compile(r"(-[a-zA-Z]?H).+", re.DOTALL)
"""The flag of a header with its value in the same word."""
_USER_OF_URL = re.compile(r"(?<=//)\S*@|\?.*", re.DOTALL)
_NAMED_SECRET = re.compile(r"((?i:key|token|secret|passw\w{0,20})[=:]).+", re.DOTALL)
_BEGINS_SECRET = re.compile(r"\A(--|=|\{(.*[^}])?)?\Z|[:;,]\Z|(?:\A|[\s:])(?i:bearer|basic)\Z", re.DOTALL)
"""Matches the first word of a secret value if the next words belong to the value, too."""
_FLAG = re.compile(r"--[a-z]|-[a-zA-Z]\Z")
_LIKE_A_PATH = re.compile(r"-$|[.~]|.*[/\\*]|.*\.\w{2,4}$", re.DOTALL)


def unknown_command(args: Sequence[str]) -> str:
    """The message about a command line whose first word is no command."""
    first, *rest = args
    word = first.lstrip("-/").lower()
    told = f"there is no command {first!r}"
    if first.startswith("-") and first != "-":
        told = f"there is no option {_name(first)}"
        if near := OTHER_WORDS.get(word) or _near(first, OWN_FLAGS + HELP_FLAGS, cutoff=0.7):
            return _meant(told, [near, *rest])
        if word in COMMANDS:
            return _meant(told, [word, *rest])
        told = f"no command is given before {_name(first)}"
        named = next((a for a in args if a in COMMANDS), "run")
        rest = list(args)
        if named in rest:
            rest.remove(named)
        return _meant(told, [named, *rest])
    if _is_path(first):
        return _meant(told, ["run", *args])
    if near := OTHER_WORDS.get(word) or _near(word, COMMANDS):
        return _meant(told, [near, *(rest if near in COMMANDS else ())])
    if _LIKE_A_PATH.match(first):
        return _meant(told, ["run", *args])
    *others, last = COMMANDS
    listed = f"{', '.join(others)} and {last}"
    return clean(f"{told}, and no such folder; the commands are {listed}; type: vlmbatch --help")


def as_typed(words: Sequence[str]) -> str:
    """The words as a line for a shell. Keys, headers and passwords are replaced by three dots.

    If quotes are missing around one, all words up to the next flag or existing path are replaced.
    """
    shown: list[str] = []
    name, is_value, lacks_quotes = "", False, False
    for word in words:
        if is_value or (lacks_quotes and not _is_flag(word) and not _is_path(word)):
            shown.append("...")
            lacks_quotes = lacks_quotes or _is_begun(name, word)
            is_value = False
            continue
        name, equals, value = word.partition("=")
        is_secret = _SECRET_FLAG.match(name) is not None
        if is_secret and equals:
            shown.append(f"{name}=...")
            lacks_quotes = _is_begun(name, value)
        else:
            shown.append(shlex.quote(_without_secrets(word)))
            is_value, glued = is_secret, _GLUED.match(word)
            lacks_quotes = glued is not None and _is_begun(glued[1], word)
    return clean(" ".join(shown))


def _is_flag(word: str) -> bool:
    return _FLAG.match(word) is not None or _GLUED.match(word) is not None


def _is_begun(flag: str, value: str) -> bool:
    """Whether this is only the first word of the secret value of this flag."""
    is_header = flag.endswith(("header", "H"))
    return _BEGINS_SECRET.search(value) is not None or (is_header and ":" not in value)


def _without_secrets(word: str) -> str:
    word = _GLUED.sub(r"\1...", word) if word.startswith("-") else word
    word = _USER_OF_URL.sub("", word) if "://" in word else " ".join(map(_without_user, word.split(" ")))
    return _NAMED_SECRET.sub(r"\1...", word)


def _without_user(word: str) -> str:
    """A URL without its scheme, such as `user:password@host`, without user and password."""
    user, _, host = word.rpartition("@")
    return host if host and ":" in user else word


def _meant(told: str, words: Sequence[str]) -> str:
    return f"{clean(told)}; did you mean: vlmbatch {as_typed(words)}"


def _name(flag: str) -> str:
    """The flag without its value, which may be secret."""
    return flag.partition("=")[0] if flag.startswith("--") else flag[:2]


def _near(word: str, known: Sequence[str] | dict[str, str], *, cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def _is_path(word: str) -> bool:
    return os.path.exists(word)  # noqa: PTH110  # Path raises for a name that is too long
