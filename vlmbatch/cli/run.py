"""`vlmbatch run`: its options; what it does is imported when it is called, so that --help stays quick."""

import typer

from vlmbatch.cli.options import with_options
from vlmbatch.config import RunConfig

EPILOG = (
    "Every option is also an environment variable (--max-size: VLMBATCH_MAX_SIZE) and a key in "
    "vlmbatch.toml (max-size = 768). The command line beats the environment, and that the file."
)


@with_options
def command(config: RunConfig) -> None:
    """Ask about every image below PATH and write one JSON record a line, answered or failed."""
    from vlmbatch.cli.session import run

    raise typer.Exit(run(config))
