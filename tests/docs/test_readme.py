"""The README matches the program: its commands, its first commands and their output."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, blocks, page

from vlmbatch.cli.answers import NOT_KEPT
from vlmbatch.cli.front import COMMANDS

README = page("README.md")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_has_every_command(command: str) -> None:
    """The README names each command."""
    assert f"vlmbatch {command}" in README


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


def test_the_readme_is_one_page() -> None:
    """The README has at most 180 lines."""
    assert len(README.splitlines()) <= 180


def test_the_first_output_is_that_of_a_run() -> None:
    """The output below the first command names real samples, and begins and ends as on a terminal."""
    [shown] = blocks(README, "text")
    first, *_, last = shown.splitlines()
    assert re.match(r"using pixie-demo \(llama-cpp, in-process\), .* records are not kept$", first)
    assert last == NOT_KEPT
    paths = [line for line in shown.splitlines() if line.startswith("samples/")]
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


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
