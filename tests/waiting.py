"""How a test waits for what another thread or process brings about."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object]) -> None:
    """Block until this holds, for 20 seconds at most."""
    for _ in range(10_000):
        if holds():
            return
        time.sleep(0.002)
    raise AssertionError("it did not come to pass in 20 seconds")
