"""The regular expressions of vlmbatch."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("matching.py")
PARTS = ("backends/classify", "backends/[lo]", "^(?!backends/)", "backends/(?!classify|l|o)")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_no_pattern_tries_the_same_text_again_and_again(part: str) -> None:
    """Each pattern ends in time with 50,000 characters, also if they almost match it."""
    done = subprocess.run([sys.executable, SCRIPT, part], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout[-300:], done.stderr[-300:])
    assert done.stdout.count("\n") > 20
