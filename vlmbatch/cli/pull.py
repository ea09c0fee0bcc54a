"""The options of `vlmbatch pull`. Its work is imported only when it runs, so that --help stays fast."""

from typing import Annotated

import typer

from vlmbatch.cli.options import CONNECTION, with_options_of
from vlmbatch.config import RunConfig

Models = Annotated[
    list[str],
    typer.Argument(
        help="Names of models in Ollama's library, for example qwen2.5vl:7b; default: VLMBATCH_MODEL.",
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
        help="Wait until Ollama is up, at most --give-up-after (here 15m), and skip models that it has.",
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
    """Make Ollama pull models, and show the progress; a model that is present takes a moment."""
    from vlmbatch.cli.pull_view import pull

    raise typer.Exit(pull(config, models, wait=wait))
