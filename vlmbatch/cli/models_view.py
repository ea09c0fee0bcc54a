"""The output of `vlmbatch models`: a table, aligned columns, or JSON lines."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from vlmbatch.cli.console import Console, printable
from vlmbatch.cli.signals import run_until_signal
from vlmbatch.commands.models import Inventory, take_inventory
from vlmbatch.config import RunConfig
from vlmbatch.observers import clean
from vlmbatch.observers.format import in_bytes
from vlmbatch.records import ModelFacts

TITLES = ("model", "size", "quant", "parameters", "context", "vision", "loaded", "where")
RIGHT = ("size", "parameters", "context")
GET_ONE = "get a vision model with: vlmbatch pull qwen2.5vl:7b"


def show(config: RunConfig, *, as_json: bool) -> int:
    """Print the models, report missing endpoints on standard error, and return the exit code."""
    console = Console(config.display)

    async def work() -> int:
        found = await take_inventory(config)
        if as_json:
            for model in found.models:
                print(json.dumps(dataclasses.asdict(model)))
        elif found.models:
            _print_rows([_row(model) for model in found.models])
        for line in _notes(found):
            console.say(clean(line))
        return found.missing[0].exit_code if found.missing else 0

    return run_until_signal(work, console)


def _notes(found: Inventory) -> list[str]:
    """The lines about missing endpoints, and advice if no endpoint has a vision model."""
    lines = [str(error) for error in found.missing]
    with_models = {model.endpoint for model in found.models}
    lines += [f"{place} has no models; {GET_ONE}" for place in found.places if place not in with_models]
    if found.models and all(model.sees is False for model in found.models):
        lines.append(f"none of these models can see images; {GET_ONE}")
    return lines


def _row(model: ModelFacts) -> tuple[str, ...]:
    cells = (
        model.name,
        "" if model.bytes is None else in_bytes(model.bytes),
        model.quantization or "",
        model.parameters or "",
        "" if model.context is None else str(model.context),
        {True: "yes", False: "no", None: "unknown"}[model.sees],
        _loaded(model),
        _where(model),
    )
    return tuple(map(printable, cells))


def _loaded(model: ModelFacts) -> str:
    if not model.loaded:
        return "" if model.loaded is None else "no"
    if model.on_gpu is None or model.on_gpu == 1:
        return "yes" if model.on_gpu is None else "GPU"
    share = round(100 * model.on_gpu)
    return f"{share}% GPU, rest CPU" if share else "CPU"


def _where(model: ModelFacts) -> str:
    if model.elsewhere is not None:
        return f"leaves this machine: {urlsplit(model.elsewhere).hostname or model.elsewhere}"
    return f"{model.backend}, {urlsplit(model.endpoint).netloc or model.endpoint}"


def _print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table on a terminal, else columns aligned by spaces."""
    if sys.stdout.isatty():
        _print_table(rows)
        return
    columns = list(zip(TITLES, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in (tuple(title.upper() for title in TITLES), *rows):
        cells = (
            cell.rjust(width) if title in RIGHT else cell.ljust(width)
            for title, cell, width in zip(TITLES, row, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in TITLES:
        wraps = title in ("model", "where")  # users copy these names, so they must not be cut
        table.add_column(
            title,
            justify="right" if title in RIGHT else "left",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
        )
    colours = {"yes": "green", "no": "dim"}
    for row in rows:
        table.add_row(*(Text(cell, style=colours.get(cell, "")) for cell in row))
    RichConsole(file=sys.stdout, highlight=False).print(table)
