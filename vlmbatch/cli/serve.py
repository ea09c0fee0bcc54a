"""The options of `vlmbatch serve`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.options import OF_A_SESSION, with_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
Examples:

  vlmbatch serve --model qwen2.5vl
  vlmbatch serve --make-key alice >> keys.toml
  vlmbatch serve --host 0.0.0.0 --keys-file keys.toml
"""
MakeKey = Annotated[
    str | None,
    typer.Option(
        "--make-key",
        help="Print the entry of a new API key for --keys-file, and the key on standard error, and end.",
        metavar="NAME",
    ),
]


@with_options_of(
    "service",
    "queue",
    "store",
    "result_ttl",
    *OF_A_SESSION,
    "prompt",
    "generation",
    "image",
    "quiet",
    "log_json",
    "traces",
)
def command(config: RunConfig, make_key: MakeKey = None) -> None:
    """Serve a model over HTTP: uploads, batches, OpenAI's form, limits and metrics."""
    from vlmbatch.cli.serve_view import print_new_key, show

    raise typer.Exit(show(config) if make_key is None else print_new_key(make_key, config))
