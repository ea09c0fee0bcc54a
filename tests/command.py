"""Runs the real command in its own process."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from forks import MOST_STDIN, forks

COMMAND = (sys.executable, "-m", "vlmbatch")
OF_A_SHELL = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),  # where some Pythons find their own libraries
    )
)
READ_LATE = re.compile(r"VLMBATCH_\w+|OPENAI_BASE_URL|OLLAMA_HOST|\w+_KEY")
"""Variables that only vlmbatch reads, and only while it runs."""

# Linux counts the memory of a process from before exec, and a child starts with the memory of its parent: so
# a small process must stand between these tests and the measured command
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user's plain shell, plus `variables`; no setting of a build machine.

    The command reads no file of the user, and remembers nothing.
    """
    shell = {name: value for name, value in os.environ.items() if name in OF_A_SHELL}
    homes = {"XDG_CONFIG_HOME": "/nonexistent", "XDG_CACHE_HOME": os.devnull, "XDG_DATA_HOME": os.devnull}
    return {**shell, **homes, "PYTHONWARNINGS": "default", **variables}


def run(
    *args: str, stdin: bytes = b"", command: Iterable[str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; its output is text.

    Without `command` it runs as a fork where that is possible (forks.py).
    """
    env = environment(**variables)
    if command is None and can_fork(stdin, variables):
        words: Iterable[str] = args
        code, out, err = forks(tuple(environment().items())).run(args, stdin, env)
    else:
        words = [*(command or COMMAND), *args]
        done = subprocess.run(words, input=stdin, capture_output=True, env=env, timeout=240, check=False)
        code, out, err = done.returncode, done.stdout, done.stderr
    texts = (output.decode("utf-8", "surrogateescape") for output in (out, err))
    return subprocess.CompletedProcess(words, code, *texts)


def can_fork(stdin: bytes, variables: Mapping[str, str]) -> bool:
    """Whether a fork can take the place of a new process.

    It can on Linux, in the main thread, with little standard input, and without a variable that a library
    reads on import.
    """
    plain = all(map(READ_LATE.fullmatch, variables))
    in_main_thread = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and plain and in_main_thread and len(stdin) < MOST_STDIN


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
