"""The options of `vlmbatch models`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.options import CONNECTION, with_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
Examples:

  vlmbatch models
  vlmbatch models --base-url http://127.0.0.1:8000/v1
"""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@with_options_of("backend", "base_url", "api_key", *CONNECTION, "timeout", "give_up_after")
def command(config: RunConfig, json: Json = False) -> None:
    """List the models of the endpoints, their size, whether they have vision, and whether they are loaded."""
    from vlmbatch.cli.models_view import show

    raise typer.Exit(show(config, as_json=json))
