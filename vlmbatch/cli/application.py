"""The typer application: it parses the command line of each command, and completes it in a shell."""

from typing import Annotated

import typer

from vlmbatch.cli import bench, collect, doctor, enqueue, models, pull, run, serve, worker
from vlmbatch.cli.front import COMMANDS
from vlmbatch.cli.parsing import Command, Group

app = typer.Typer(
    cls=Group,
    help="Ask a vision model about each image in a folder, and write one JSON record for each image.",
    rich_markup_mode=None,  # rich would double the CPU time of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _module in (
    ("run", run),
    ("doctor", doctor),
    ("models", models),
    ("pull", pull),
    ("bench", bench),
    ("serve", serve),
    ("worker", worker),
    ("enqueue", enqueue),
    ("collect", collect),
):
    app.command(_name, cls=Command, short_help=COMMANDS[_name], epilog=_module.EPILOG)(_module.command)


def _version(value: bool) -> None:
    if value:
        from importlib import metadata

        print(f"vlmbatch {metadata.version('vlmbatch')}", flush=True)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Receive the options in front of the command; vlmbatch/cli/front.py prints the help."""
