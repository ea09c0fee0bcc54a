"""Runs the real command in a process of its own."""

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

# Linux counts what a process held before it became another program, and a child begins as its parent: so
# a small one has to stand between these tests and the command whose memory is measured
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


def environment(**variables: str) -> dict[str, str]:
    """That of a user's plain shell, with `variables`; of a build machine's settings nothing is left."""
    shell = {name: value for name, value in os.environ.items() if name in OF_A_SHELL}
    return {**shell, "XDG_CONFIG_HOME": "/nonexistent", "PYTHONWARNINGS": "default", **variables}


def run(
    *args: str, stdin: bytes = b"", command: Iterable[str] = COMMAND, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The finished command, with what it wrote as text."""
    done = subprocess.run(
        [*command, *args],
        input=stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=120,
        check=False,
    )
    out, err = (b.decode("utf-8", "surrogateescape") for b in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def measured(*args: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """The finished command, and the most bytes of memory that it held."""
    done = run(*args, command=(sys.executable, "-S", "-c", MEASURE, *COMMAND))
    *told, peak = done.stderr.splitlines(keepends=True)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, "".join(told)), int(peak)


def start(
    *args: str,
    command: Iterable[str] = COMMAND,
    variables: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> subprocess.Popen[str]:
    """The command running, in text mode, with these environment variables beside the usual ones."""
    return subprocess.Popen([*command, *args], env=environment(**(variables or {})), text=True, **kwargs)


def breaking(folder: Path, code: str) -> dict[str, str]:
    """The variables by which Python runs this code before the command, to break something inside it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder.absolute())}


def records(lines: str | Iterable[str]) -> list[dict[str, Any]]:
    """The records in JSONL text or lines; each must be whole."""
    return [json.loads(line) for line in (lines.splitlines() if isinstance(lines, str) else lines)]
