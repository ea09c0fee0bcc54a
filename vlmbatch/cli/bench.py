"""The options of `vlmbatch bench`. Its work is imported only when it runs, so that --help stays fast."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vlmbatch.cli.options import CONNECTION, with_options_of
from vlmbatch.config import RunConfig
from vlmbatch.config.spec import require

EPILOG = """\
Examples:

  vlmbatch bench http://127.0.0.1:8000/v1 --max-tokens 64
  vlmbatch bench --levels 1,2,4 --images photos
  vlmbatch bench --rate 0.5,1,2 --plot bench.svg
"""
Url = Annotated[
    str | None,
    typer.Argument(
        help="The URL of the endpoint, in place of --base-url.",
        metavar="[URL]",
        show_default=False,
    ),
]
Levels = Annotated[
    str | None,
    typer.Option(
        "--levels",
        help="The numbers of requests at once, for example 1,4,16. Without it: 1, 2, 4 and so on up to 64, "
        "until the throughput no longer grows.",
        metavar="N,N",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        help="Send this many requests per second, for example 0.5,1,2, whether or not answers come.",
        metavar="N,N",
    ),
]
Seconds = Annotated[
    str,
    typer.Option("--seconds", help="How long each level is measured. [default: 10]", metavar="TIME"),
]
WarmUp = Annotated[
    str,
    typer.Option(
        "--warm-up",
        help="How long each level runs before its requests count. [default: 3]",
        metavar="TIME",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        "--images",
        help="Send these images: a folder or a file. Without it, each request has a new drawn picture.",
        metavar="PATH",
    ),
]
Plot = Annotated[
    str | None,
    typer.Option("--plot", help="Draw the results into this SVG file (needs matplotlib).", metavar="FILE"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")]


@with_options_of(
    *("model", "backend", "base_url", "api_key", "mmproj", "keep_alive", "canary", "option"),
    *CONNECTION,
    *("extra_body", "mm_processor_kwargs", "file_urls"),
    *("prompt", "prompt_file", "system", "max_tokens", "temperature", "seed", "num_ctx", "schema"),
    *("image", "max_bytes", "include", "exclude", "timeout", "give_up_after", "quiet", "log_json"),
)
def command(
    config: RunConfig,
    url: Url = None,
    levels: Levels = None,
    request_rate: Rate = None,  # another name than that of the --rate of serve, which settings files set
    seconds: Seconds = "10",
    warm_up: WarmUp = "3",
    images: Images = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Measure throughput and latency of an endpoint, and find the best --concurrency for it."""
    from vlmbatch.cli.bench_view import show
    from vlmbatch.commands.bench.plan import Plan
    from vlmbatch.config.spec import check_url
    from vlmbatch.errors import ConfigError

    try:
        plan = Plan.of(levels=levels, rate=request_rate, seconds=seconds, warm_up=warm_up)
        require(plot is None or plot.endswith(".svg"), f"--plot {plot} is not an SVG file; write FILE.svg")
        if url is not None:
            require(
                "://" in url or not Path(url).exists(),
                f"{url} is a file or folder, not the URL of an endpoint; write --images {url}",
            )
            check_url(url, "URL")
            config = replace(config, endpoint=replace(config.endpoint, base_url=(url,)))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(show(config, plan, images, plot, as_json=json))
