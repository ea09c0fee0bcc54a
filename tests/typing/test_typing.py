"""What type checkers find in a user's code: mypy --strict and pyright know the options and the answers."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = [Path(__file__).with_name(name) for name in ("good.py", "bad.py")]
MARKED = "# mistake: "


def by_mypy(folder: Path) -> str:
    """What `mypy --strict` says about both files; its cache is in this folder."""
    options = ("--strict", "--cache-dir", str(folder))
    return said_by("mypy", *options, *map(str, FILES), folder=folder)


def by_pyright(folder: Path) -> str:
    """What pyright says about both files."""
    return said_by("pyright", "--pythonpath", sys.executable, *map(str, FILES), folder=folder)


def said_by(*command: str, folder: Path) -> str:
    """What a checker says that finds mistakes; it runs in this folder, away from settings of vlmbatch."""
    done = subprocess.run((sys.executable, "-m", *command), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def marked(file: Path) -> set[int]:
    """The numbers of the lines with a mistake."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if MARKED in line}


@pytest.mark.long
@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
def test_a_type_checker_finds_exactly_the_mistakes(checker: Callable[[Path], str], tmp_path: Path) -> None:
    """It finds each marked mistake, and none in any other line of both files."""
    said = checker(tmp_path)
    for file in FILES:
        lines = re.findall(rf"{file.name}:(\d+):.* error\b", said)
        assert {int(line) for line in lines} == marked(file), said
    assert [bool(marked(file)) for file in FILES] == [False, True]
