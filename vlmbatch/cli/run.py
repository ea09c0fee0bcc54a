"""The options of `vlmbatch run`. Its work is imported only when it runs, so that --help stays fast."""

import typer

from vlmbatch.cli.options import with_options
from vlmbatch.config import RunConfig

EPILOG = (
    "Every option is also an environment variable (--max-size: VLMBATCH_MAX_SIZE) and a line in a settings "
    "file (max-size = 768): ~/.config/vlmbatch/vlmbatch.toml, and ./vlmbatch.toml for options that shape "
    "questions and pictures. The command line overrides the environment, which overrides the files."
)


@with_options
def command(config: RunConfig) -> None:
    """Send every image below PATH to the model and write one JSON record per line, answered or failed."""
    from vlmbatch.cli.command_run import run

    raise typer.Exit(run(config))
