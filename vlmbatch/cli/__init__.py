"""The commands. Each has a file of its own, and imports what is heavy only when it runs."""

from typing import Annotated

import typer

from vlmbatch.cli import doctor, models, pull, run
from vlmbatch.cli.shown_help import Command

app = typer.Typer(
    help="Ask a vision model about every image in a folder: one JSONL record an image.",
    rich_markup_mode=None,  # rich would double the CPU that --help costs
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# short enough for a line of 80 columns each
app.command("run", cls=Command, short_help="Ask about images; one JSON record a line.", epilog=run.EPILOG)(
    run.command
)
app.command("doctor", cls=Command, short_help="Check whether a run would go well.")(doctor.command)
app.command("models", cls=Command, short_help="List the models that the endpoints have.")(models.command)
app.command("pull", cls=Command, short_help="Have Ollama fetch models.")(pull.command)


def _version(value: bool) -> None:
    if value:
        from importlib import metadata

        print(f"vlmbatch {metadata.version('vlmbatch')}", flush=True)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Ask a vision model about every image in a folder: one JSONL record an image."""
