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
    args = sys.argv[1:]
    if not os.environ.get(COMPLETION):
        args = command_line(args)
    from vlmbatch.cli.application import app

    app(args, prog_name="vlmbatch")


def __getattr__(name: str) -> object:
    """Import the typer application on first use, so that `vlmbatch --help` stays fast."""
    if name == "app":
        from vlmbatch.cli.application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
