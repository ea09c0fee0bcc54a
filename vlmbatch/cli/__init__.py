"""The commands. Each is in its own file, and imports heavy modules only when it runs."""

import os
import sys
from typing import TYPE_CHECKING

from vlmbatch.cli.front import command_line
from vlmbatch.cli.importing import without_garbage_collection

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
    forget_odd_sizes()
    completing = os.environ.get(COMPLETION)
    args = sys.argv[1:] if completing else command_line(sys.argv[1:])
    if completing:
        os.environ["COLUMNS"] = "1000"  # typer would break a help text into lines, each a completion in fish
    with without_garbage_collection():
        from vlmbatch.cli.application import app

    if completing == "complete_bash":
        from vlmbatch.cli.completion import whole_words

        with whole_words():
            app(args, prog_name="vlmbatch")
    else:
        app(args, prog_name="vlmbatch")


def forget_odd_sizes() -> None:
    """Let the terminal tell its size if COLUMNS or LINES is not a number from 1 to 999.

    With COLUMNS=0 rich prints nothing at all, and with a million it draws a bar of a million columns.
    """
    for name in ("COLUMNS", "LINES"):
        size = os.environ.get(name, "")
        if not (size.isascii() and size.isdecimal() and len(size) <= len("999") and int(size)):
            os.environ.pop(name, None)


def __getattr__(name: str) -> object:
    """Import the typer application on first use, so that `vlmbatch --help` stays fast."""
    if name == "app":
        from vlmbatch.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
