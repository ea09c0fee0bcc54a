"""Keep records of different settings apart, unless somebody wants them in one file."""

from collections.abc import Mapping
from typing import Any

from vlmbatch.errors import ConfigError
from vlmbatch.writers.resume import Contents

MOST_NAMED = 5
LONGEST_VALUE = 60


def refuse_mixture(
    path: str,
    contents: Contents,
    known: Mapping[str, Mapping[str, Any]],
    run: str,
    settings: Mapping[str, Any],
) -> None:
    """Nothing where the file holds records of `run`, or none at all; `known` are settings by run.

    Raises:
        ConfigError: all its records were made with other settings; the message names what differs.
    """
    if contents.other is None or run in contents.runs:
        return
    old = known.get(str(contents.other.get("run")))
    if old is None:  # the lock file is lost: a record tells less, but something
        old = {name: contents.other.get(name) for name in ("model", "backend") if name in settings}
        names = list(old)
    else:
        names = [*settings, *(name for name in old if name not in settings)]
    raise ConfigError(
        f"{path} holds records made with other settings{differences(old, settings, names)}\n"
        "Add --append to keep them and write to the same file, --overwrite to delete them, "
        "or name another file with --output"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], names: list[str]) -> str:
    """Those of `names` whose values differ, a line each."""
    lines = [
        f"\n  {name}: {_shown(old.get(name))} -> {_shown(new.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"\n  and {len(lines) - MOST_NAMED} more"]
    return ":" + "".join(lines) if lines else "; which ones is not known any more"


def _shown(value: object) -> str:
    if value is None:
        return "not set"
    text = repr(value)  # control characters of a prompt must not reach the terminal
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
