"""Regenerates the parts of the pages that come from the program.

These are docs/terminal.svg, the help in README.md, and the table of replies in docs/failures.md.

Run it from anywhere: python docs/refresh.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from vlmbatch.backends.classify.answer import FINISHES
from vlmbatch.backends.classify.rows import REPLIES
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
)

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
COMMAND = "$ vlmbatch run --help"
COLUMNS = "80"
FAILURES = ROOT / "docs" / "failures.md"
DOES: dict[type[BackendError], str] = {
    TransientError: "retries",
    RejectedError: "a record for this image",
    BadAnswerError: "retries differently",
    UnavailableError: "waits or pauses",
    FatalBackendError: "ends with exit code 2",
}
_REPLIES = re.compile(r"(<!-- replies: .*? -->)\n.*?(<!-- end of replies -->)", re.DOTALL)
_HELP_BLOCK = re.compile(rf"^```(\w*)\n{re.escape(COMMAND)}\n.*?^```$", re.MULTILINE | re.DOTALL)


def real_help() -> str:
    """The output of `vlmbatch run --help` at 80 columns, without the settings of this machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VLMBATCH_")}
    done = subprocess.run(
        [sys.executable, "-m", "vlmbatch", "run", "--help"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**kept, "COLUMNS": COLUMNS, "NO_COLOR": "1"},
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def shown_help(readme: str) -> str:
    """The help that a README shows, without the command itself.

    Raises:
        ValueError: no block begins with the command.
    """
    match = _HELP_BLOCK.search(readme)
    if match is None:
        raise ValueError(f"README.md has no fenced block that begins with: {COMMAND}")
    return match[0].split("\n", 2)[2].removesuffix("```").rstrip("\n")


def with_help(readme: str, text: str) -> str:
    """The README with this help in its block."""
    shown_help(readme)
    return _HELP_BLOCK.sub(lambda match: f"```{match[1]}\n{COMMAND}\n{text}\n```", readme)


def replies_table() -> str:
    """The rows that tell replies apart, as a Markdown table."""
    lines = ["| reply | kind | what you read | the run |", "|---|---|---|---|"]
    for row in (*REPLIES, *FINISHES):
        says = f"{row.says}; {row.hint}" if row.hint else row.says
        lines.append(f"| {row.name} | `{row.kind}` | {says} | {DOES[row.error]} |")
    return "\n".join(lines)


def with_replies(text: str) -> str:
    """The page with the table of replies between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    if not _REPLIES.search(text):
        raise ValueError("docs/failures.md has no marks for the table of replies")
    return _REPLIES.sub(lambda match: f"{match[1]}\n{replies_table()}\n{match[2]}", text)


def refresh() -> None:
    """Write all three anew."""
    FAILURES.write_text(with_replies(FAILURES.read_text(encoding="utf-8")), encoding="utf-8")
    subprocess.run([sys.executable, str(ROOT / "docs" / "make_terminal_svg.py")], check=True)
    README.write_text(with_help(README.read_text(encoding="utf-8"), real_help()), encoding="utf-8")


if __name__ == "__main__":
    refresh()
