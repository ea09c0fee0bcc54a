"""The options of `vlmbatch run`. Its work is imported only when it runs, so that --help stays fast."""

import typer

from vlmbatch.cli.importing import without_garbage_collection
from vlmbatch.cli.options import with_options
from vlmbatch.config import RunConfig

EPILOG = """\
Each option can also be an environment variable (VLMBATCH_MAX_SIZE=768) or a line in a settings file
(max-size = 768): your own file ~/.config/vlmbatch/vlmbatch.toml, or, for some options, ./vlmbatch.toml.
The command line overrides the environment, and the environment overrides the files.

Examples:

  vlmbatch run photos
  vlmbatch run photos -p "Is there text?" -o answers.jsonl
  vlmbatch run photos --model qwen2.5vl:7b --limit 5
"""


@with_options
def command(config: RunConfig) -> None:
    """Ask a vision model about each image in PATH, and write one JSON record for each image."""
    from vlmbatch.backends.http.light_import import import_aiohttp

    with without_garbage_collection():
        if not any("litellm" in text for text in (config.endpoint.backend, *config.endpoint.fallback)):
            import_aiohttp()  # LiteLLM uses the SSL contexts of aiohttp
        from vlmbatch.cli.command_run import run

    raise typer.Exit(run(config))
