"""The options of `vlmbatch doctor`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.models import Json
from vlmbatch.cli.options import with_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
Examples:

  vlmbatch doctor
  vlmbatch doctor photos --model qwen2.5vl:7b
"""
Path = Annotated[
    str | None,
    typer.Argument(
        help="A folder of images, or one image, for the test. Without it, a drawn image is sent.",
        metavar="[PATH]",
        show_default=False,
    ),
]


@with_options_of(
    "endpoint", "request", "prompt", "generation", "image", "max_bytes", "timeout", "give_up_after"
)
def command(config: RunConfig, path: Path = None, json: Json = False) -> None:
    """Check with one image whether a run would work, and say what to do about each problem."""
    from vlmbatch.cli.doctor_view import show

    raise typer.Exit(show(config, path, as_json=json))
