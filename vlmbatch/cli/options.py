"""The command line, made from the fields of RunConfig; settings files give its defaults."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, get_args

import typer

from vlmbatch.cli.completion import completer
from vlmbatch.cli.repeated import refuse_repeated, repeated_lines
from vlmbatch.cli.settings import (
    THE_SETTINGS,
    blamed,
    check_model,
    read_defaults,
    say_first,
    settings_lines,
    source_of,
    variable_lines,
)
from vlmbatch.config import EXCLUSIVE, Option, RunConfig, options
from vlmbatch.config.settings_file import HERE
from vlmbatch.config.spec import parse_number, parse_whole
from vlmbatch.errors import ConfigError

CONNECTION = ("header", "ca_cert", "client_cert", "client_key", "insecure")
"""Options of the connection to an endpoint, for commands that send no images."""


PARSERS: Mapping[Any, Callable[[str], object]] = {int: parse_whole, float: parse_number}
"""How numbers are read that have no parser of their own."""
OF_A_SESSION = (
    "endpoint",
    "request",
    "max_bytes",
    "concurrency",
    "rpm",
    "timeout",
    "retries",
    "give_up_after",
    "drain",
    "decode_memory",
    "dedupe",
    "cache",
    "prices",
)
"""Options of a session, for commands that keep one open."""
UNUSED_PATH = "."
"""The path in the RunConfig of a command without PATH; it is not used."""


def with_options(command: Callable[[RunConfig], None]) -> Callable[..., None]:
    """Make the Typer command: one parameter for PATH, one for --config, and one for each option of a run.

    Typer uses the flag first, then the environment variable, then the file.
    """

    chosen = [option for option in options() if option.group not in ("service", "jobs")]
    return _typer_command(_on_paths(command), command.__doc__, [_paths()], chosen)


def with_paths_and_options_of(
    *groups_or_names: str,
) -> Callable[[Callable[[RunConfig], None]], Callable[..., None]]:
    """Like `with_options`, with some of the options; see `with_options_of`."""
    chosen = _chosen(groups_or_names)

    def wrap(command: Callable[[RunConfig], None]) -> Callable[..., None]:
        return _typer_command(_on_paths(command), command.__doc__, [_paths()], chosen)

    return wrap


def with_options_of(*groups_or_names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like `with_options`, for a command without PATH, with some of the options and its own parameters.

    Each name is a group of RunConfig (`endpoint`) or a single option: `give_up_after`, or `output.output` if
    its group has the same name. The options keep the order of their declaration. Other keys in vlmbatch.toml
    are read and checked, but have no effect.
    """
    chosen = _chosen(groups_or_names)

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command).parameters.values()
        return _typer_command(command, command.__doc__, [_keyword_of(p) for p in own], chosen)

    return wrap


def _chosen(groups_or_names: Sequence[str]) -> list[Option]:
    names = frozenset(groups_or_names)
    return [o for o in options() if not names.isdisjoint((o.group, o.name, f"{o.group}.{o.name}"))]


def _on_paths(command: Callable[[RunConfig], None]) -> Callable[..., None]:
    """The command with a parameter for PATH."""

    def on_paths(config: RunConfig, paths: list[str]) -> None:
        command(replace(config, paths=tuple(paths)))

    return on_paths


def _typer_command(
    command: Callable[..., None], doc: str | None, own: list[inspect.Parameter], chosen: list[Option]
) -> Callable[..., None]:
    """Make the command with its own parameters, --config, and one parameter for each of these options."""

    def from_command_line(context: typer.Context, config: str | None, **values: object) -> None:
        given = {parameter.name: values.pop(parameter.name) for parameter in own}
        try:
            refuse_repeated(context)
            chosen_values = _without_weaker(context, values | _lines(context))
            _tell_first(context, chosen_values)
            made = _config_from(context, chosen_values)
            check_model(context, made)
        except ConfigError as error:
            raise _bad(str(error)) from error
        command(made, **given)

    from_command_line.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # defined by PEP 362
        [
            _keyword("context", typer.Context, inspect.Parameter.empty),
            *own,
            _config(),
            *(_parameter(option) for option in chosen),
        ]
    )
    from_command_line.__doc__ = doc
    return from_command_line


def _config_from(context: typer.Context, values: dict[str, Any]) -> RunConfig:
    """The config with these options; raises ConfigError, which names the place of a wrong value."""
    try:
        return RunConfig.of(UNUSED_PATH, **values)
    except ConfigError as error:
        raise ConfigError(blamed(context, str(error))) from error


def _tell_first(context: typer.Context, values: dict[str, object]) -> None:
    """Print the first lines of a command; with --quiet only those that warn."""
    is_quiet = bool(values.get("quiet"))
    lines = [*settings_lines(context, only_warnings=is_quiet), *variable_lines()]
    if not is_quiet:
        lines.extend(repeated_lines(context))
    if lines:
        say_first(lines, log_json=bool(values.get("log_json")))


def _lines(context: typer.Context) -> dict[str, object]:
    """Read options whose values may have spaces from their environment variables: one value per line."""
    typed = [o for o in options() if o.spec.split_lines and os.environ.get(o.env, "").strip()]
    return {
        o.name: [line for line in os.environ[o.env].splitlines() if line.strip()]
        for o in typed
        if source_of(context, o.name) != "COMMANDLINE"
    }


def _without_weaker(context: typer.Context, values: dict[str, object]) -> dict[str, object]:
    """Drop the weaker of two options that exclude each other: a flag overrides environment and file."""
    rank = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
    for pair in EXCLUSIVE:
        both = [name for name in pair if values.get(name) not in (None, False)]
        ranks = [rank.index(source_of(context, name) or rank[-1]) for name in both]
        if len(both) == 2 and ranks[0] != ranks[1]:
            weaker = both[ranks.index(max(ranks))]
            values = {**values, weaker: False if values[weaker] is True else None}
    return values


def _paths() -> inspect.Parameter:
    argument = typer.Argument(
        help="Folders or image files; - reads a list of paths from standard input.",
        metavar="PATH...",
        show_default=False,
    )
    return _keyword("paths", Annotated[list[str], argument], inspect.Parameter.empty)


def _config() -> inspect.Parameter:
    config = typer.Option(
        "--config",
        help=f"Read the settings from this file, and not from {HERE} or ~/.config/vlmbatch/vlmbatch.toml.",
        metavar="FILE",
        envvar="VLMBATCH_CONFIG",
        show_envvar=False,
        is_eager=True,
        callback=_read_defaults,
    )
    return _keyword("config", Annotated[str | None, config], None)


def _parameter(option: Option) -> inspect.Parameter:
    spec = option.spec
    kinds = (option.type, *get_args(option.type))
    parse = spec.parse or next((PARSERS[kind] for kind in kinds if kind in PARSERS), None)
    info = typer.Option(
        f"{option.flag}/--no-{option.flag[2:]}" if option.type is bool else option.flag,
        *([spec.short] if spec.short else []),
        help=spec.help,
        metavar=spec.metavar,
        envvar=None if spec.split_lines else option.env,  # typer would split it into words
        show_envvar=False,
        parser=_parser(parse, option.flag) if parse else None,
        autocompletion=completer(option),
    )
    kind: Any = list[str] if option.type == tuple[str, ...] else option.type
    if spec.choices:
        kind = str  # RunConfig checks the value, and its message lists the choices
    default = list(option.default) if isinstance(option.default, tuple) else option.default
    return _keyword(option.name, Annotated[kind, info], default)


def _parser(parse: Callable[[str], object], flag: str) -> Callable[[object], object]:
    def typed(value: object) -> object:
        """Parse the value; a number from the file and a parsed default are no texts yet."""
        try:
            return parse(str(value))
        except ValueError as error:
            raise _bad(str(error), flag) from error

    return typed


def _bad(message: str, flag: str | None = None) -> typer.BadParameter:
    """Make the error for a wrong option; its message is safe for a terminal."""
    from vlmbatch.observers import clean  # imports rich, which --help does not need

    return typer.BadParameter(clean(message), param_hint=flag)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _keyword_of(parameter: inspect.Parameter) -> inspect.Parameter:
    return _keyword(parameter.name, parameter.annotation, parameter.default)


def _read_defaults(context: typer.Context, value: str | None) -> str | None:
    try:
        read_defaults(context, value)
    except ConfigError as error:
        raise _bad(str(error), "--config" if value else THE_SETTINGS) from error
    return value
