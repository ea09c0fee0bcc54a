"""The commands. Each is in its own file, and imports heavy modules only when it runs."""

import os
import sys
from typing import TYPE_CHECKING

from vlmbatch.cli.front import command_line

if TYPE_CHECKING:
    from vlmbatch.cli.application import app

COMPLETION = "_VLMBATCH_COMPLETE"
"""The variable with which a shell asks for completions; typer reads it."""

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line of this process.

    Raises:
        SystemExit: the command ended.
    """
    completing = os.environ.get(COMPLETION)
    args = sys.argv[1:] if completing else command_line(sys.argv[1:])
    if completing:
        os.environ["COLUMNS"] = "1000"  # typer would break a help text into lines, each a completion in fish
    from vlmbatch.cli.application import app

    if completing == "complete_bash":
        from vlmbatch.cli.completion import whole_words

        with whole_words():
            app(args, prog_name="vlmbatch")
    else:
        app(args, prog_name="vlmbatch")


def __getattr__(name: str) -> object:
    """Import the typer application on first use, so that `vlmbatch --help` stays fast."""
    if name == "app":
        from vlmbatch.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
