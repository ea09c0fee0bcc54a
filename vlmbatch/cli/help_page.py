"""The text of a command's help: its options under headings, in lines that fit into the terminal."""

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, get_args

from typer.core import TyperArgument

from vlmbatch.config import Option, options
from vlmbatch.config.spec import Section

SECTIONS: tuple[Section, ...] = get_args(Section)
USUAL = 80
"""The columns of a help without a terminal."""
NARROWEST, WIDEST = 30, 110
COLUMN = 28
"""Where the help texts begin."""
NARROW = 72
"""In a narrower terminal, each help text is below its option."""
INDENT = 6
"""Where the help texts begin in a narrow terminal."""
_OPTIONS = {option.name: option for option in options()}
_UNBREAKABLE = "\N{NO-BREAK SPACE}"
Row = tuple[str, str]


def width() -> int:
    """How many columns a help has: those of the terminal, also if a pager shows the help there."""
    typed = os.environ.get("COLUMNS", "")
    columns = int(typed) if typed.isdecimal() else 0
    for descriptor in (1, 2, 0):
        with suppress(OSError):
            columns = columns or os.get_terminal_size(descriptor).columns
    return max(min(columns or USUAL, WIDEST) - 2, NARROWEST)


def arguments_of(params: Iterable[Any]) -> list[Row]:
    """The arguments of a command with their help.

    Releases of typer write their names as `PATH...`, `{PATH...}` and `{PATH...}...`.
    """
    return [(p.metavar or "", p.help or "") for p in params if isinstance(p, TyperArgument)]


def write_options(params: Iterable[Any], formatter: Any) -> None:
    """Write the arguments, and each option under its heading."""
    params = list(params)
    sections: Mapping[str, list[Row]] = {"Arguments": arguments_of(params), **{name: [] for name in SECTIONS}}
    for param in params:
        if not isinstance(param, TyperArgument) and not param.hidden:
            option = _OPTIONS.get(param.name)
            sections[_section(param.name, option)].append(_row(param, option))
    for heading, rows in sections.items():
        if rows:
            formatter.write("\n" + "\n".join([f"{heading}:", *definitions(rows, formatter.width)]) + "\n")


def write_epilog(text: str, formatter: Any) -> None:
    """Write paragraphs; lines that begin with a space are examples, which stay as they are."""
    for part in text.split("\n\n"):
        lines = part.splitlines()
        if not part.startswith(" "):
            lines = list(wrapped(" ".join(lines), formatter.width))
        formatter.write("\n" + "\n".join(lines) + "\n")


def definitions(rows: Iterable[Row], width: int) -> Iterator[str]:
    """Yield the lines of names with their help texts."""
    column = INDENT if width < NARROW else COLUMN
    for name, text in rows:
        first, *others = wrapped(text, width - column)
        if len(name) + 4 > column:
            yield f"  {name}"
            yield " " * column + first
        else:
            yield f"  {name}".ljust(column) + first
        yield from (" " * column + line for line in others)


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text; no word is broken, and no default if a line has room for it."""
    if max(map(len, text.split(" ")), default=0) > width:
        text = text.replace(_UNBREAKABLE, " ")
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_UNBREAKABLE, " ") for line in lines] or [""]


def _section(name: str, option: Option | None) -> str:
    """The heading of an option; the options of a single command come first."""
    if option is not None:
        return option.section
    return SECTIONS[-1] if name in ("config", "help") else SECTIONS[0]


def _row(param: Any, option: Option | None) -> Row:
    """The flags of an option, and its help with the default."""
    turns_off = option is not None and option.default is True
    flags = param.secondary_opts if turns_off else sorted(param.opts, key=len)
    names = ", ".join(flags)
    if not param.is_flag:
        names += f" {param.metavar}"
    default = None if option is None else shown_default(option)
    if default is None:
        return names, param.help
    return names, f"{param.help} {f'[default: {default}]'.replace(' ', _UNBREAKABLE)}"


def shown_default(option: Option) -> str | None:
    """The default as the help shows it; None if nothing is to be shown."""
    if option.spec.shown_default:
        return option.spec.shown_default
    return None if option.default in (None, (), "") or option.type is bool else str(option.default)
