"""docs/failures.md matches the program: its table, its kinds, and a test for each of its numbers."""

import ast
import re
import runpy
from pathlib import Path
from typing import get_args

from vlmbatch.errors import FailureKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
NUMBERS = {"T": 18, "O": 28, "V": 16, "L": 9, "P": 9, "F": 22, "X": 15}


def test_the_table_of_replies_is_up_to_date() -> None:
    """docs/failures.md has every row of the program's table of replies. To refresh: just docs."""
    refresh = runpy.run_path(str(ROOT / "docs" / "refresh.py"))
    assert refresh["replies_table"]() in PAGE, "docs/failures.md is old; run: just docs"


def test_every_kind_of_failure_is_explained() -> None:
    """Each value of error.kind has a row, and no other word has one."""
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(get_args(FailureKind))


def test_every_known_failure_has_a_test_or_a_reason() -> None:
    """Each number has a test with its name, a test named in its row, or a reason for "not tested here"."""
    rows = dict(re.findall(r"^\| ([TOVLPFX]\d+) \| (.*) \|$", PAGE, re.MULTILINE))
    assert set(rows) == {f"{letter}{n + 1}" for letter, count in NUMBERS.items() for n in range(count)}
    tests = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tests |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for number, text in rows.items():
        own = any(re.match(rf"test_(\w\d+_)*?{number.lower()}_", name) for name in tests)
        named = any(name in tests for name in re.findall(r"test_\w+", text))
        assert own or named or "not tested here" in text, number
