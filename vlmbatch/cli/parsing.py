"""How the commands parse their command lines, and how they say that one is wrong."""

import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from vlmbatch.cli.help_page import arguments_of, width, write_epilog, write_options
from vlmbatch.cli.repeated import remember_repeated
from vlmbatch.cli.settings import blame, say_before_error
from vlmbatch.cli.value_reader import without_pydantic

USAGE_ERROR: Any = typer.BadParameter.__base__
"""The error for each wrong command line."""
_TYPED = "vlmbatch.typed"
"""The key in the context under which the words after the name of the command are kept."""


class Group(TyperGroup):
    """Prints a wrong command line as one message of vlmbatch, without typer's lines about the usage."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, which read their values without pydantic."""
        return without_pydantic(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command, or print what is wrong with its command line."""
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            from vlmbatch.cli.usage_errors import message_of  # imports rich

            sys.stderr.write(f"vlmbatch: {message_of(error, *ctx.meta[_TYPED])}\n")
            raise typer.Exit(error.exit_code) from error


class Command(TyperCommand):
    """Shows its help under headings.

    Contexts and formatters come from a private copy of click inside typer, so their types have no name here.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, which read their values without pydantic."""
        return without_pydantic(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, and remember the options that are given more than once."""
        typed = list(args)  # the next line empties the list
        ctx.meta[_TYPED] = ctx, typed
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
        return [*(name for name, _ in arguments_of(self.get_params(ctx))), self.options_metavar or ""]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help in the width of the terminal."""
        formatter.width = width()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options under headings."""
        write_options(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples and the notes below the options."""
        write_epilog(self.epilog or "", formatter)
