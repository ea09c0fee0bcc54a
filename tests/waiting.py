"""Waits for another thread or process."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object]) -> None:
    """Block until the condition holds, for at most two minutes."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.002)
    raise AssertionError("the condition did not hold within two minutes")
