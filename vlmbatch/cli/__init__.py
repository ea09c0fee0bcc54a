"""The commands. Each is in its own file, and imports heavy modules only when it runs."""

from typing import Annotated

import typer

from vlmbatch.cli import doctor, models, pull, run
from vlmbatch.cli.shown_help import Command

app = typer.Typer(
    help="Send every image in a folder to a vision model, and write one JSONL record per image.",
    rich_markup_mode=None,  # rich would double the CPU time of --help
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# each short help fits into a line of 80 columns
app.command(
    "run", cls=Command, short_help="Process images; write one JSON record per line.", epilog=run.EPILOG
)(run.command)
app.command("doctor", cls=Command, short_help="Check whether a run would work.")(doctor.command)
app.command("models", cls=Command, short_help="List the models of the endpoints.")(models.command)
app.command("pull", cls=Command, short_help="Make Ollama pull models.")(pull.command)


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
    """Send every image in a folder to a vision model, and write one JSONL record per image."""
