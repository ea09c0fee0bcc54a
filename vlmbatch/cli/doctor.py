"""`vlmbatch doctor`: its options; what it does is imported when it is called, so that --help stays quick."""

from typing import Annotated

import typer

from vlmbatch.cli.models import Json
from vlmbatch.cli.options import with_options_of
from vlmbatch.config import RunConfig

Image = Annotated[
    str | None,
    typer.Argument(help="An image to ask about; else one is drawn.", metavar="[IMAGE]", show_default=False),
]


@with_options_of(
    "endpoint", "request", "prompt", "generation", "image", "max_bytes", "timeout", "give_up_after"
)
def command(config: RunConfig, image: Image = None, json: Json = False) -> None:
    """Check whether a run would go well, with one real image, and say what to do where it would not."""
    from vlmbatch.cli.doctor_view import show

    raise typer.Exit(show(config, image, as_json=json))
