"""The settings files of a command: they give the defaults of its options, and its first line names them."""

from typing import Any

import typer

from vlmbatch.config import RunConfig
from vlmbatch.config.settings_file import Settings, read_settings

_KEY = "vlmbatch.settings"


def read_defaults(context: Any, named: str | None) -> None:
    """Read the settings files into the defaults of the context, which comes from a private copy of click.

    Raises:
        ConfigError: a file cannot be used.
    """
    settings = read_settings(named)
    context.meta[_KEY] = settings
    context.default_map = dict(settings.values)


def settings_lines(context: typer.Context) -> list[str]:
    """The lines to print about the files that were read."""
    return _settings(context).lines


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


def check_model(context: typer.Context, config: RunConfig) -> None:
    """Raise ConfigError if a model of ./vlmbatch.toml is used where it is dangerous."""
    if source_of(context, "model") == "DEFAULT_MAP":
        _settings(context).check_model(config.endpoint.backend)


def source_of(context: typer.Context, name: str) -> str:
    """Where the value of an option comes from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP or DEFAULT."""
    return getattr(context.get_parameter_source(name), "name", "")


def _settings(context: typer.Context) -> Settings:
    settings: Settings = context.meta[_KEY]
    return settings
