"""What the Tab key of a shell completes, beyond the names of commands, options and files."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator

import typer

from vlmbatch.config import Option, RunConfig
from vlmbatch.errors import VlmbatchError

PATIENCE_S = 0.5
"""How long an endpoint may take to list its models."""
_ASKING = ("backend", "base_url", "api_key", "header", "ca_cert", "client_cert", "client_key", "insecure")
"""The options that decide which endpoint is asked, and how."""
_BREAKS = (":", "=")
"""Characters at which bash breaks words."""


def completer(option: Option) -> Callable[..., list[str]] | None:
    """The function with which typer completes the value; without it the shell completes names of files."""
    if option.name == "model":
        return _models
    if option.spec.words:
        return lambda incomplete: list(_listed(option.spec.words, incomplete))
    return (lambda incomplete: list(option.spec.choices)) if option.spec.choices else None


def _listed(words: tuple[str, ...], incomplete: str) -> Iterator[str]:
    """Yield the typed words with each further one behind a comma."""
    before, comma, _ = incomplete.rpartition(",")
    return (f"{before}{comma}{word}" for word in words if word not in before.split(","))


def _models(ctx: typer.Context) -> list[str]:
    """The models of the endpoint that the command line, the environment and the settings name.

    An endpoint that does not answer in time, or any error, gives no models and no message.
    """
    given = {name: value for name, value in ctx.params.items() if name in _ASKING and value is not None}
    import asyncio  # takes tens of milliseconds, and --help has no use for it

    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(VlmbatchError, OSError, TimeoutError):
        return asyncio.run(_asked(RunConfig.of(".", **given)))
    return []


async def _asked(config: RunConfig) -> list[str]:
    import asyncio

    from vlmbatch.aio import Unawaited
    from vlmbatch.backends.registry import servers
    from vlmbatch.commands.models import each_endpoint, take_inventory

    for one in each_endpoint(config):
        for candidate in servers(one):
            candidate.make()  # imports its modules, which may take longer than the answer
    asyncio.get_running_loop().set_default_executor(Unawaited())
    found = await asyncio.wait_for(take_inventory(config), PATIENCE_S)
    names = dict.fromkeys(facts.name for facts in found.models if facts.sees is not False)
    return [name for name in names if name.isprintable() and " " not in name]


@contextlib.contextmanager
def whole_words() -> Iterator[None]:
    """Let typer complete a word that bash has broken at a colon or an equals sign.

    The word is put together again, and of each completion only the part behind its last colon is printed.
    """
    number = os.environ.get("COMP_CWORD", "")
    at = int(number) if number.isascii() and number.isdecimal() else 0
    joined, place = _joined(os.environ.get("COMP_WORDS", "").split("\n"), at)
    os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(place)}
    known, colon, _ = joined[place].rpartition("=")[2].rpartition(":")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            print(line.removeprefix(known + colon))


def _joined(words: list[str], at: int) -> tuple[list[str], int]:
    """The words as typed, and the place of the word with the number `at` among them."""
    joined: list[str] = []
    place = 0
    for number, word in enumerate(words):
        if joined and (word in _BREAKS or joined[-1].endswith(_BREAKS)) and word:
            joined[-1] += word
        else:
            joined.append(word)
        if number <= at:
            place = len(joined) - 1
    return joined, place
