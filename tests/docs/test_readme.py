"""The README matches the program: its help, its options and its first commands."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import run
from documents import ROOT, blocks, page
from typer.models import CommandInfo

from vlmbatch.cli import app
from vlmbatch.config import Option, options

README = page("README.md")
REFRESH = "README.md shows an old help; run: just docs (python docs/refresh.py)"
refreshing = runpy.run_path(str(ROOT / "docs" / "refresh.py"))


def test_the_help_is_up_to_date() -> None:
    """The README has the words of `vlmbatch run --help`; its line breaks may differ."""
    assert refreshing["shown_help"](README).split() == refreshing["real_help"]().split(), REFRESH


def test_refreshing_replaces_the_help_and_nothing_else() -> None:
    """docs/refresh.py replaces only the block of the help, and a second time changes nothing."""
    before = "a\n```\nx\n```\n```text\n$ vlmbatch run --help\nold\n\nold\n```\n```\nb\n```\n"
    after = refreshing["with_help"](before, "new [x]\n\\1")
    assert after == "a\n```\nx\n```\n```text\n$ vlmbatch run --help\nnew [x]\n\\1\n```\n```\nb\n```\n"
    assert refreshing["with_help"](after, refreshing["shown_help"](after)) == after
    with pytest.raises(ValueError, match="no fenced block"):
        refreshing["with_help"]("nothing here", "new")


@pytest.mark.parametrize("option", list(options()), ids=lambda option: option.name)
def test_the_readme_has_every_option(option: Option) -> None:
    """The help in the README has the flag of each option."""
    assert re.search(rf"(?<![\w-]){option.flag}(?![\w-])", refreshing["shown_help"](README)), REFRESH


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.name)
def test_the_readme_has_every_command(command: CommandInfo) -> None:
    """The README names each command, and its line in the help is not cut at 80 columns."""
    assert f"`vlmbatch {command.name}" in README or f"$ vlmbatch {command.name}" in README
    listed = run("--help", COLUMNS="80").stdout
    assert re.search(rf"^  {command.name} +{re.escape(command.short_help or '')}$", listed, re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        'python3 -m venv .venv && .venv/bin/pip install ".[embedded]" && .venv/bin/vlmbatch run samples',
        'python3 -m venv .venv && .venv/bin/pip install ".[dev]" && .venv/bin/pytest',
    ],
)
def test_the_readme_has_the_first_commands(command: str) -> None:
    """The README has both set-up commands, each on its own line."""
    assert command in [line for block in blocks(README, "(?:sh)?") for line in block.splitlines()]


def test_the_options_of_a_file_in_the_folder_are_listed() -> None:
    """The README lists exactly the options that ./vlmbatch.toml may set."""
    _, found, listed = README.partition("`./vlmbatch.toml` may set options that shape")
    assert found
    named = re.findall(r"`([a-z-]+)`", listed.partition("Any other option")[0])
    assert sorted(named) == sorted(o.key for o in options() if o.spec.harmless)


def test_all_links_have_a_target() -> None:
    """Each file and each heading that a page of the project links to exists."""
    for name in ("README.md", "CONTRIBUTING.md", *(p.as_posix() for p in pages())):
        folder = (ROOT / name).parent
        for goal in re.findall(r"\]\(([^)\s]+)\)", page(name)):
            path, _, heading = goal.partition("#")
            if "://" in goal:
                continue
            there = folder / path if path else ROOT / name
            assert there.exists(), f"{name} links to {goal}"
            if heading:
                assert heading in headings(there.read_text(encoding="utf-8")), f"{name} links to {goal}"


def pages() -> Iterator[Path]:
    """The pages in docs/, from the top of the project."""
    return (path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
