"""The standard output of each command: a pipe, a file, a full device, a closed pipe, a closed stream."""

import fcntl
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, environment, start
from endpoint import Endpoint, Model
from selection import long
from waiting import until

PAGE = 4096
"""The smallest capacity of a pipe, in bytes."""
Photos = Callable[..., Path]
PRINTING = {
    "": (2, ""),
    "--help": (0, "Usage: vlmbatch"),
    "--version": (0, "vlmbatch 0."),
    "run --help": (0, "--max-size"),
    "run --bogus": (2, ""),
    "run photos --dry-run {at}": (0, ""),
    "run photos -q {at}": (0, '"status":"ok"'),
    "run photos -q --format text {at}": (0, "photos/p0000.jpg\n  "),
    "models {at}": (0, "tiny-vision:latest"),
    "models --json {at}": (0, '"name": "tiny-vision:latest"'),
    "models {at} --base-url http://127.0.0.1:9": (4, "tiny-vision:latest"),
    "doctor {at} -m tiny-vision": (0, "next: vlmbatch run"),
    "doctor {at} -m no-such-model": (2, "no-such-model"),
    "pull tiny-vision {at}": (0, ""),
}
"""For each command its exit code and a text on its standard output; no text if it prints nothing there."""
INTO = {
    "pipe": ("{command} | cat; exit ${{PIPESTATUS[0]}}", None),
    "file": ("{command} >out; code=$?; cat out; exit $code", None),
    "/dev/full": ("{command} >/dev/full", 5),
    "closed pipe": ("{{ sleep 0.01; {command}; }} | true; exit ${{PIPESTATUS[0]}}", 0),
    "closed": ("{command} >&-", 5),
}
"""For each kind of standard output a shell line, and the exit code of a command that prints to it."""


def shell(line: str, command: str, endpoint: Endpoint) -> subprocess.CompletedProcess[str]:
    """The finished line with this command, in the environment of a user's shell."""
    variables = environment()
    assert "PYTHONUNBUFFERED" not in variables
    words = f"{shlex.join(COMMAND)} {command.format(at=f'-b ollama --base-url {endpoint.url}')}"
    return subprocess.run(
        ["bash", "-c", line.format(command=words)],
        capture_output=True,
        text=True,
        env=variables,
        timeout=240,
        check=False,
    )


CASES = [
    (command, into) for command, (_, text) in PRINTING.items() for into in INTO if text or into == "pipe"
]
NORMAL = [
    *((command, "pipe") for command in PRINTING),
    *((command, into) for command in ("--help", "run photos -q {at}") for into in INTO if into != "pipe"),
]


@pytest.mark.parametrize(("command", "into"), [case if case in NORMAL else long(*case) for case in CASES])
def test_standard_output_is_complete_or_an_error(
    photos: Photos, endpoint: Endpoint, command: str, into: str
) -> None:
    """A command writes all its output before it ends; output that cannot be written is exit code 5.

    A closed pipe is no error, and a command that failed already keeps its code.
    """
    photos(1)
    (code, text), (line, unwritable) = PRINTING[command], INTO[into]
    done = shell(line, command, endpoint)
    assert "Traceback" not in done.stderr
    if unwritable is None:
        assert (done.returncode, text in done.stdout) == (code, True), done.stderr
    else:
        assert done.returncode in ((unwritable, code) if code else (unwritable,)), done.stderr
        told = [line for line in done.stderr.splitlines() if "standard output" in line]
        assert len(told) == (unwritable == 5), done.stderr


def test_ctrl_c_ends_a_command_whose_reader_has_stopped() -> None:
    """Ctrl-C ends a command that waits to write the rest of its output, without a traceback."""
    models = {f"model-{n}": Model() for n in range(20)}  # several kilobytes of output
    with (
        Endpoint(models=models) as endpoint,
        start(
            *("models", "--json", "-b", "ollama", "--base-url", endpoint.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running,
    ):
        fcntl.fcntl(running.stdout, fcntl.F_SETPIPE_SZ, PAGE)  # type: ignore[arg-type]  # it is a pipe
        until(lambda: waiting_bytes(running.stdout) == PAGE)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=240) == -signal.SIGINT
        assert "Traceback" not in running.communicate()[1]


def waiting_bytes(pipe: Any) -> int:
    """The number of bytes in a pipe that are not read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
