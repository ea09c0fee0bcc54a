"""The options of `vlmbatch enqueue`. Its work is imported only when it runs, so that --help stays fast."""

import typer

from vlmbatch.cli.options import with_paths_and_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
The same command again adds only images that are not in the queue. With -o, it skips images that are done
in FILE, and does not change FILE. vlmbatch collect writes the records.

Examples:

  vlmbatch enqueue photos --queue redis://127.0.0.1:6379
  vlmbatch enqueue photos -p "Is there text?" --batch texts
  vlmbatch enqueue photos -o answers.jsonl --priority low
"""


@with_paths_and_options_of(
    "queue",
    "store",
    "batch",
    "priority",
    "model",
    "prompt",
    "generation",
    "input",
    "image",
    "output.output",
    "retry_failed",
    "quiet",
    "log_json",
)
def command(config: RunConfig) -> None:
    """Add all images in PATH to a queue, for workers on any number of machines."""
    from vlmbatch.cli.enqueue_view import show

    raise typer.Exit(show(config))
