"""The options of `vlmbatch collect`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.options import with_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
A record leaves the queue only when it is on the disk. The same command again continues where it ended.

Examples:

  vlmbatch collect -o answers.jsonl
  vlmbatch collect --batch texts -o texts.jsonl --no-wait
"""
NoWait = Annotated[
    bool,
    typer.Option(
        "--no-wait", help="Write the records that are ready, and end (exit code 6 if images are left)."
    ),
]


@with_options_of(
    "queue",
    "batch",
    "output.output",
    "overwrite",
    "append",
    "give_up_after",
    "max_failures",
    "quiet",
    "verbose",
    "log_json",
    "summary",
    "metrics_file",
)
def command(config: RunConfig, no_wait: NoWait = False) -> None:
    """Write the records of a batch in a queue, and wait until all its images are done."""
    from vlmbatch.cli.collect_view import show

    raise typer.Exit(show(config, waits=not no_wait))
