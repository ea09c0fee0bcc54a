"""The options of `vlmbatch worker`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.options import OF_A_SESSION, with_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
Examples:

  vlmbatch worker --queue redis://127.0.0.1:6379 -m llava
  vlmbatch worker --store /mnt/store --backend vllm
  vlmbatch worker --store /mnt/store --until-empty
"""
UntilEmpty = Annotated[
    bool, typer.Option("--until-empty", help="End when no job waits, for example in Slurm or cron.")
]


@with_options_of(
    "queue",
    "store",
    *OF_A_SESSION,
    "quiet",
    "verbose",
    "log_json",
    "metrics_file",
    "traces",
)
def command(config: RunConfig, until_empty: UntilEmpty = False) -> None:
    """Do the jobs in a queue, with one model. Start as many workers as you like, on any machine."""
    from vlmbatch.cli.worker_view import show

    raise typer.Exit(show(config, until_empty=until_empty))
