"""Runs the real command in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "vlmbatch")
OF_A_SHELL = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),  # where some Pythons find their own libraries
    )
)

# Linux counts the memory of a process from before exec, and a child starts with the memory of its parent: so
# a small process must stand between these tests and the measured command
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user's plain shell, plus `variables`; no setting of a build machine."""
    shell = {name: value for name, value in os.environ.items() if name in OF_A_SHELL}
    return {**shell, "XDG_CONFIG_HOME": "/nonexistent", "PYTHONWARNINGS": "default", **variables}


def run(
    *args: str, stdin: bytes = b"", command: Iterable[str] = COMMAND, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The finished command, with its output as text."""
    done = subprocess.run(
        [*command, *args],
        input=stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=240,
        check=False,
    )
    out, err = (b.decode("utf-8", "surrogateescape") for b in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def measured(*args: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """The finished command, and its peak memory in bytes."""
    done = run(*args, command=(sys.executable, "-S", "-c", MEASURE, *COMMAND))
    *lines, peak = done.stderr.splitlines(keepends=True)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, "".join(lines)), int(peak)


def start(
    *args: str,
    command: Iterable[str] = COMMAND,
    variables: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> subprocess.Popen[str]:
    """The running command, in text mode, with these environment variables in addition to the usual ones."""
    return subprocess.Popen([*command, *args], env=environment(**(variables or {})), text=True, **kwargs)


def breaking(folder: Path, code: str) -> dict[str, str]:
    """The variables that make Python run this code before the command, to break something in it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder.absolute())}


def records(lines: str | Iterable[str]) -> list[dict[str, Any]]:
    """The records in JSONL text or lines; each must be complete."""
    return [json.loads(line) for line in (lines.splitlines() if isinstance(lines, str) else lines)]
