"""Waits for another thread or process."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object]) -> None:
    """Block until the condition holds, for at most 20 seconds."""
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.002)
    raise AssertionError("the condition did not hold within 20 seconds")
