"""`vlmbatch pull`: its options; what it does is imported when it is called, so that --help stays quick."""

from typing import Annotated

import typer

from vlmbatch.cli.options import WAY_THERE, with_options_of
from vlmbatch.config import RunConfig

Models = Annotated[
    list[str],
    typer.Argument(
        help="Names of models as Ollama knows them, for example qwen2.5vl:7b; else VLMBATCH_MODEL.",
        metavar="MODEL...",
        envvar="VLMBATCH_MODEL",
        show_envvar=False,
        show_default=False,
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for Ollama to be there, up to --give-up-after (here 15m).")
]


@with_options_of(
    *(
        "backend",
        "base_url",
        "api_key",
        *WAY_THERE,
        "timeout",
        "retries",
        "give_up_after",
        "quiet",
        "log_json",
    )
)
def command(config: RunConfig, models: Models, wait: Wait = False) -> None:
    """Have Ollama fetch models, and show how far it is; what is there already takes a moment."""
    from vlmbatch.cli.pull_view import pull

    raise typer.Exit(pull(config, models, wait=wait))
