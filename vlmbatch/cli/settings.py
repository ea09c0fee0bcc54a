"""The settings files of a command: they give the defaults of its options, and its first line names them."""

import os
import re
from collections.abc import Iterable
from typing import Any

import typer

from vlmbatch.config import RunConfig, options
from vlmbatch.config.settings_file import Settings, read_settings
from vlmbatch.config.spec import nearest
from vlmbatch.config.toml_options import KeyPlace

PREFIX = "VLMBATCH_"
OTHER_VARIABLES = ("TEST_", "COMPLETE")
"""The beginnings of variables of our tests and of the completion in a shell."""
THE_SETTINGS = "the settings"
"""The place of an error in a settings file, whose message has the name of the file."""
_KEY = "vlmbatch.settings"


def read_defaults(context: Any, named: str | None) -> None:
    """Read the settings files into the defaults of the context, which comes from a private copy of click.

    Raises:
        ConfigError: a file cannot be used.
    """
    settings = read_settings(named)
    context.meta[_KEY] = settings
    context.default_map = dict(settings.values)


def settings_lines(context: typer.Context, *, only_warnings: bool) -> list[str]:
    """The lines to print about the files that were read, or only the warnings among them."""
    settings = _settings(context)
    return list(settings.warnings) if only_warnings else settings.lines


def say_first(lines: list[str], *, log_json: bool = False) -> None:
    """Print the first lines of a command on standard error."""
    from vlmbatch.cli.console import Console  # imports rich, which --help does not need
    from vlmbatch.config.run import DisplayOptions
    from vlmbatch.observers import clean

    console = Console(DisplayOptions(log_json=log_json))
    for line in lines:
        console.say(clean(line))
    console.close()


def say_before_error(context: Any, args: list[str]) -> None:
    """Name the files that were read, since the wrong value may come from them; nothing with --quiet."""
    settings = context.meta.get(_KEY)
    if settings and settings.lines and not {"-q", "--quiet"}.intersection(args):
        say_first(settings.lines)


def variable_lines() -> list[str]:
    """A line for each variable whose name begins as ours and is not known; it shows no value."""
    known = {o.env.removeprefix(PREFIX) for o in options()} | {"CONFIG"}
    is_set = (key for key, value in os.environ.items() if value and key.startswith(PREFIX))
    names = sorted(key.removeprefix(PREFIX) for key in is_set)
    return [
        f"the variable {PREFIX}{name} is not known and has no effect{_meant(name, known)}"
        for name in names
        if name not in known and not name.startswith(OTHER_VARIABLES)
    ]


def _meant(name: str, known: Iterable[str]) -> str:
    return nearest(name, known).replace("mean ", f"mean {PREFIX}")


def check_model(context: typer.Context, config: RunConfig) -> None:
    """Raise ConfigError if a model of ./vlmbatch.toml is used where it is dangerous."""
    if source_of(context, "model") == "DEFAULT_MAP":
        _settings(context).check_model(config.endpoint.backend)


def source_of(context: Any, name: str) -> str:
    """Where the value of an option comes from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP or DEFAULT."""
    return getattr(context.get_parameter_source(name), "name", "")


def blamed(context: Any, message: str) -> str:
    """The message of an error, which names the place of each value that is not from the command line.

    A flag before the first semicolon becomes its environment variable, or its key with the file and line.
    """
    told, semicolon, advice = message.partition("; ")
    files: dict[str, None] = {}

    def origin(found: re.Match[str]) -> str:
        variable, place = _place_of(context, found[0][2:].replace("-", "_"))
        if place is None:
            return variable or found[0]
        files[str(place)] = None
        return place.key

    told = re.sub(r"--[a-z][a-z-]*", origin, told)
    return f"{' and '.join(files)}{': ' if files else ''}{told}{semicolon}{advice}"


def blame(context: Any, error: typer.BadParameter) -> None:
    """Make the error of click's parser name the variable, or the file and line, that has the wrong value."""
    name = getattr(error.param, "name", None)
    variable, place = _place_of(context, name or "")
    if variable:
        error.param_hint = variable
    if place is not None:
        error.param_hint = f"{place.key} in {place}"


def _place_of(context: Any, name: str) -> tuple[str | None, KeyPlace | None]:
    """The environment variable or the place in a file that sets this option; None for what does not."""
    option = next((o for o in options() if o.name == name), None)
    if option is None:
        return None, None
    source = source_of(context, name)
    in_lines = option.spec.split_lines and os.environ.get(option.env, "").strip()
    if source == "ENVIRONMENT" or (in_lines and source != "COMMANDLINE"):
        return option.env, None
    return None, _settings(context).places.get(name) if source == "DEFAULT_MAP" else None


def _settings(context: Any) -> Settings:
    settings: Settings = context.meta[_KEY]
    return settings
