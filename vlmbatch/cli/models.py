"""`vlmbatch models`: its options; what it does is imported when it is called, so that --help stays quick."""

from typing import Annotated

import typer

from vlmbatch.cli.options import WAY_THERE, with_options_of
from vlmbatch.config import RunConfig

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@with_options_of("backend", "base_url", "api_key", *WAY_THERE, "timeout", "give_up_after")
def command(config: RunConfig, json: Json = False) -> None:
    """List the models of all endpoints that are named or found, whether they see, and what is loaded."""
    from vlmbatch.cli.models_view import show

    raise typer.Exit(show(config, as_json=json))
