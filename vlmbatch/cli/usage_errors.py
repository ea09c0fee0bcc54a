"""The messages about a wrong command line: what is wrong, and what to type instead.

Errors and contexts come from a private copy of click inside typer, so their types have no name here.
"""

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from vlmbatch.cli.foreign_flags import FOREIGN_FLAGS
from vlmbatch.cli.settings import THE_SETTINGS
from vlmbatch.cli.suggestions import as_typed
from vlmbatch.observers import clean

ALMOST_THE_SAME = 0.85
EXAMPLES = {
    "run": "no PATH is given; name a folder of images: vlmbatch run FOLDER",
    "enqueue": "no PATH is given; name a folder of images: vlmbatch enqueue FOLDER",
    "pull": "no MODEL is given; name one, for example: vlmbatch pull qwen2.5vl:7b",
}
"""For each command with a required argument the message without it."""


def message_of(error: Any, context: Any, typed: Sequence[str]) -> str:
    """The message of a usage error; `typed` are the words after the name of the command."""
    flag = getattr(error, "option_name", None)
    if flag is not None and hasattr(error, "possibilities"):
        return clean(_no_such_option(flag, context))
    if flag is not None:
        return clean(_wrong_value_count(flag, context))
    if hasattr(error, "param_type"):
        return _missing(context.info_name, typed)
    if isinstance(error, typer.BadParameter):
        place = error.param_hint or (error.param.opts[-1] if error.param is not None else "")
        if getattr(error.param, "is_bool_flag", False):  # only a variable can give such an option a value
            return clean(f"{place} takes 1 or 0, not {os.environ.get(str(place), '')!r}")
        is_named = place in ("", THE_SETTINGS) or error.message.startswith("--")
        return clean(error.message if is_named else f"{place}: {error.message}")
    return clean(error.message)


def _missing(command: str, typed: Sequence[str]) -> str:
    told = EXAMPLES[command]
    return f"{told} {as_typed(typed)}" if typed and command != "pull" else told


def _no_such_option(flag: str, context: Any) -> str:
    known = _metavars(context.command.get_params(context))
    told = f"there is no option {flag}"
    name = flag.lower().replace("_", "-")
    advice = FOREIGN_FLAGS.get(flag) or FOREIGN_FLAGS.get(name, "")
    if name in known:
        return f"{told}; write {_shown(name, known)}"
    if advice in known:
        return f"{told}; write {_shown(advice, known)}"
    if " " in advice and context.info_name == "run":
        return f"{told}; {advice}"
    if near := _nearest(name, known):
        return f"{told}; did you mean {_listed([_shown(n, known) for n in near])}?"
    return f"{told}; for all options type: {context.command_path} --help"


def _listed(words: Sequence[str]) -> str:
    """The words with commas, and `or` before the last one."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """The most similar flags: one if it is almost the same, else up to three."""
    flags = [flag for flag in known if flag.startswith("--")]
    found = difflib.get_close_matches(name, flags, n=3, cutoff=0.65) if name.startswith("--") else []
    if found and difflib.SequenceMatcher(None, name, found[0]).ratio() >= ALMOST_THE_SAME:
        return found[:1]
    begun = [flag for flag in flags if flag.startswith(name)] if len(name) > len("--x") else []
    return begun[:3] or found


def _wrong_value_count(flag: str, context: Any) -> str:
    known = _metavars(context.command.get_params(context))
    if known.get(flag):
        return f"{flag} needs a value; write {_shown(flag, known)}"
    return f"{flag} takes no value; write {flag} alone"


def _metavars(params: Iterable[Any]) -> dict[str, str]:
    """For each flag the word for its value; empty if it takes none."""
    return {
        flag: "" if getattr(param, "is_flag", False) else param.metavar or "VALUE"
        for param in params
        if param.param_type_name == "option"
        for flag in (*param.opts, *param.secondary_opts)
    }


def _shown(flag: str, known: dict[str, str]) -> str:
    return f"{flag} {known[flag]}".strip()
