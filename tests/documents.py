"""Finds sections, tables and fenced blocks in the project's pages."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    """The text of a page, by its path from the root of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next heading of its rank."""
    rank = heading.split(" ")[0]
    match = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^{rank} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading!r}"
    return match[1]


def blocks(text: str, language: str) -> list[str]:
    """The contents of all fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str) -> list[list[str]]:
    """The cells of all rows of all tables, without heads and without backticks around a first cell."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split(" | ")]
        for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    heads = [number - 1 for number, row in enumerate(rows) if set("".join(row)) <= set("-| ")]
    body = [row for number, row in enumerate(rows) if number not in heads and number - 1 not in heads]
    return [[row[0].strip("`"), *row[1:]] for row in body]


def jq_recipes(text: str) -> list[str]:
    """The lines in sh blocks that start with jq and contain no run."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("jq ") and "vlmbatch run" not in line]


def examples(name: str) -> list[str]:
    """The Python examples of a page. Those of docstrings, in docs/api.md, get the import that is missing."""
    found = blocks(page(name), "python")
    if name != "docs/api.md":
        return found
    return [
        f"from vlmbatch import open_session, run_batch\n\n{block}" for block in found if "prompt=" in block
    ]
