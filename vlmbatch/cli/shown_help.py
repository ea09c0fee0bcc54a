"""How a command parses its command line and shows its help."""

from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand

from vlmbatch.cli.repeated import remember_repeated
from vlmbatch.cli.settings import blame, say_before_error


class Command(TyperCommand):
    """Shows its arguments in one way: releases of typer write `PATH...`, `{PATH...}` and `{PATH...}...`.

    Contexts and formatters come from a private copy of click inside typer, so their types have no name here.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, and remember the options that are given more than once."""
        typed = list(args)  # the next line empties the list
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            blame(ctx, error)
            say_before_error(ctx, typed)
            raise
        _, _, parsed = self.make_parser(ctx).parse_args(args=typed)
        remember_repeated(ctx, parsed)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line after the name of the command."""
        return [self.options_metavar or "", *(name for name, _ in self._arguments(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options."""
        records = [p.get_help_record(ctx) for p in self.get_params(ctx) if not isinstance(p, TyperArgument)]
        for title, rows in (
            ("Arguments", self._arguments(ctx)),
            ("Options", [row for row in records if row]),
        ):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _arguments(self, ctx: Any) -> list[tuple[str, str]]:
        found = [param for param in self.get_params(ctx) if isinstance(param, TyperArgument)]
        return [(p.metavar or "", f"{p.help}{'  [required]' * p.required}") for p in found]
