"""Row F6 of docs/failures.md: decoding any bytes ends in a picture or an ImageError."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_pictures import MACHINE
from selection import mostly_long

FUZZ = Path(__file__).parents[1] / "fuzz_pictures.py"


@pytest.mark.slow
@pytest.mark.parametrize("rounds", mostly_long([30, 120], [30]))
@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_f6_mutated_pictures_cost_their_own_record_and_no_more(rounds: int) -> None:
    """About 30 mutated pictures in each round raise only ImageError, print nothing and do not crash."""
    done = subprocess.run(
        [sys.executable, "-W", "always", FUZZ, "4", str(rounds)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert sum(told["outcomes"].values()) > 25 * rounds
    assert set(told["outcomes"]) <= {"prepared", "bad_image", "too_large", "bad_shape"}
    assert told["outcomes"]["prepared"] > 4 * rounds
    assert told["outcomes"]["bad_image"] > 12 * rounds
    assert told["grew"] < MACHINE
