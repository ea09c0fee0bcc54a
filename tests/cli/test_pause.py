"""The real command while its process is stopped, as by Ctrl-Z, a debugger, or a laptop that sleeps."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import records, start
from endpoint import Endpoint

Photos = Callable[..., Path]
TIMEOUT_S = 2
TRIES = 3
"""On a very slow machine, the timeout may pass before the process is stopped; then the test tries again."""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows does not stop processes")
def test_a_pause_longer_than_the_timeout_costs_no_attempt(photos: Photos, endpoint: Endpoint) -> None:
    """An answer that comes while the process is stopped for longer than --timeout is read and used."""
    photos(1)
    assert any(attempts_with_pause(endpoint, f"{turn}.jsonl") == 1 for turn in range(TRIES))


def attempts_with_pause(endpoint: Endpoint, output: str) -> int:
    """The number of attempts of a run that is stopped between its question and the answer."""
    asked = len(endpoint.questions)
    endpoint.released, endpoint.script = False, lambda request: "held"
    running = start(
        *("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", output),
        *("--timeout", str(TIMEOUT_S)),
        stderr=subprocess.DEVNULL,
    )
    endpoint.until(lambda: len(endpoint.questions) > asked)
    time.sleep(TIMEOUT_S / 10)  # now it waits for the answer
    os.kill(running.pid, signal.SIGSTOP)
    endpoint.released = True
    endpoint.until(lambda: not endpoint.open_questions)
    time.sleep(2 * TIMEOUT_S)
    os.kill(running.pid, signal.SIGCONT)
    assert running.wait(240) == 0
    (record,) = records(Path(output).read_text())
    attempts: int = record["attempts"]
    return attempts
