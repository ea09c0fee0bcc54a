"""Regenerates the parts of the pages that come from the program.

These are docs/terminal.svg, the options in docs/options.md, the table of replies in docs/failures.md, and the
public names in docs/api.md.

Run it from anywhere: python docs/refresh.py
"""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

from vlmbatch.backends.classify.answer import FINISHES
from vlmbatch.backends.classify.rows import REPLIES
from vlmbatch.cli.help_page import shown_default
from vlmbatch.config import Option, options
from vlmbatch.config.spec import Section
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
)

ROOT = Path(__file__).parent.parent
DOES: dict[type[BackendError], str] = {
    TransientError: "retries",
    RejectedError: "a record for this image",
    BadAnswerError: "retries differently",
    UnavailableError: "waits or pauses",
    FatalBackendError: "ends with exit code 2",
}


def options_tables() -> str:
    """A heading and a Markdown table for each group of options in the help; the service comes last."""
    parts = []
    for section in sorted(get_args(Section), key="Service".__eq__):
        rows = [_option_row(option) for option in options() if option.section == section]
        parts.append(
            "\n".join([f"### {section}", "", "| option | meaning | default |", "|---|---|---|", *rows])
        )
    return "\n\n".join(parts)


def _option_row(option: Option) -> str:
    flag = option.flag.replace("--", "--no-", 1) if option.default is True else option.flag
    value = "" if option.type is bool else f" {option.spec.metavar}"
    names = [*([f"`{option.spec.short}`"] if option.spec.short else []), f"`{flag}{value}`"]
    cells = (", ".join(names), option.spec.help, shown_default(option) or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def safe_options() -> str:
    """The options that ./vlmbatch.toml may set."""
    return ", ".join(f"`{option.key}`" for option in options() if option.spec.harmless) + "."


def replies_table() -> str:
    """The rows that tell replies apart, as a Markdown table."""
    lines = ["| reply | kind | what you read | the run |", "|---|---|---|---|"]
    for row in (*REPLIES, *FINISHES):
        says = f"{row.says}; {row.hint}" if row.hint else row.says
        lines.append(f"| {row.name} | `{row.kind}` | {says} | {DOES[row.error]} |")
    return "\n".join(lines)


def public_names() -> str:
    """All public names, with their signatures and docstrings."""
    made: str = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["reference"]()
    return made


GENERATED = {
    "names": ("api.md", public_names),
    "options": ("options.md", options_tables),
    "safe": ("options.md", safe_options),
    "replies": ("failures.md", replies_table),
}
"""For each name in the marks of a page: the page, and what stands between the marks."""


def between_marks(text: str, name: str, content: str) -> str:
    """The page with this content between the two marks of the name.

    Raises:
        ValueError: the page has no such marks.
    """
    marks = re.compile(rf"(<!-- {name}: .*? -->)\n.*?(<!-- end of {name} -->)", re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"the page has no marks with the name {name}")
    return marks.sub(lambda match: f"{match[1]}\n{content}\n{match[2]}", text)


def refresh() -> None:
    """Write all of them again."""
    for name, (page, content) in GENERATED.items():
        path = ROOT / "docs" / page
        path.write_text(between_marks(path.read_text(encoding="utf-8"), name, content()), encoding="utf-8")
    subprocess.run([sys.executable, str(ROOT / "docs" / "make_terminal_svg.py")], check=True)


if __name__ == "__main__":
    refresh()
