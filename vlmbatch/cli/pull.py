"""The options of `vlmbatch pull`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.options import CONNECTION, with_options_of
from vlmbatch.config import RunConfig

EPILOG = """\
Examples:

  vlmbatch pull qwen2.5vl:7b
  vlmbatch pull qwen2.5vl:7b --wait
"""
Models = Annotated[
    list[str],
    typer.Argument(
        help="Names of models in Ollama's library, for example qwen2.5vl:7b. Without a name: VLMBATCH_MODEL.",
        metavar="MODEL...",
        envvar="VLMBATCH_MODEL",
        show_envvar=False,
        show_default=False,
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait until Ollama is up, for --give-up-after at most (here 15m). Skip models that Ollama has.",
    ),
]


@with_options_of(
    *(
        "backend",
        "base_url",
        "api_key",
        *CONNECTION,
        "timeout",
        "retries",
        "give_up_after",
        "quiet",
        "log_json",
    )
)
def command(config: RunConfig, models: Models, wait: Wait = False) -> None:
    """Download models with Ollama, and show the progress."""
    from vlmbatch.cli.pull_view import pull

    raise typer.Exit(pull(config, models, wait=wait))
