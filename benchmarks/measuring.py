"""Runs commands one after the other and measures each from outside: time, CPU, memory, first record. Linux.

This module does not know what the commands do.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

CONTENDERS = Path(__file__).parent / "contenders"
LOOK_S = 0.005
"""Seconds between two looks at a running command."""
Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A command measured from outside, from its start to its end.

    `cpu_s` is user and system time; `peak_bytes` the peak memory (VmHWM); `first_record_s` the time of the
    first whole line in its output file, None without one; `told` the printed text.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    first_record_s: float | None
    told: str


def rounds_of(
    rounds: int, runs: Mapping[str, Callable[[], Measured]], rest_s: float = 0.0
) -> dict[str, list[Measured]]:
    """Do every run once in each round, one after the other, so that a busy minute of the machine hits all."""
    measured: dict[str, list[Measured]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            time.sleep(rest_s)
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            measured[name].append(run())
    return measured


def observe(
    command: Sequence[str],
    output: Path | None = None,
    *,
    exits: Sequence[int] = (0,),
    first_only: bool = False,
    cache_folder: Path | None = None,
    longer_than: int = 0,
) -> Observed:
    """Run a command and watch it; `first_only` ends it after its first record.

    `cache_folder`: see environment(). If the output already has records, `longer_than` is its size in bytes.

    Raises:
        RuntimeError: the exit code is not in `exits`.
    """
    with tempfile.TemporaryFile() as told:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=told, stderr=subprocess.STDOUT, env=environment(cache_folder)
        )
        peak, first = 0, None
        while True:
            peak = max(peak, memory(process.pid, "VmHWM"))
            if first is None and output is not None and _has_line(output, longer_than):
                first = time.monotonic() - began
                if first_only:
                    process.kill()
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(LOOK_S)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if first is None and output is not None and _has_line(output, longer_than):
            first = wall
        told.seek(0)
        text = told.read().decode(errors="replace")
    if process.returncode not in exits and not first_only:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text}")
    return Observed(
        wall_s=wall,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_bytes=peak,
        first_record_s=first,
        told=text,
    )


def contend(name: str, **options: object) -> dict[str, Any]:
    """Run a contender over all images in a process of its own; returns the figures that it prints."""
    done = subprocess.run(
        contender(name, **options), capture_output=True, text=True, env=environment(), check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def contender(name: str, **options: object) -> list[str]:
    """The command line of a contender."""
    return [sys.executable, str(CONTENDERS / f"{name}.py"), *flags(**options)]


def vlmbatch(*paths: object, **options: object) -> list[str]:
    """The command line of vlmbatch."""
    return [sys.executable, "-m", "vlmbatch", "run", *map(str, paths), *flags(**options)]


def flags(**options: object) -> list[str]:
    """Options as flags: None is left out, and True is a flag alone."""
    told = []
    for name, value in options.items():
        if value is not None and value is not False:
            told.append(f"--{name.replace('_', '-')}")
            if value is not True:
                told.append(str(value))
    return told


def environment(cache_folder: Path | None = None) -> dict[str, str]:
    """The environment of this process, without settings of vlmbatch, of endpoints and of Python.

    Commands store files for later commands in `cache_folder`; with None, they neither store nor read any.
    PYTHONDONTWRITEBYTECODE, for one, would make each process compile the modules that pip has not.
    """
    unwanted = ("VLMBATCH_", "OLLAMA_", "OPENAI_", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**mine, "XDG_CONFIG_HOME": "/nonexistent", "XDG_CACHE_HOME": str(cache_folder or os.devnull)}


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder for images and records."""
    with tempfile.TemporaryDirectory(prefix="vlmbatch-bench-") as name:
        yield Path(name)


def memory(pid: int, kind: str) -> int:
    """The bytes that a process holds, by their name in /proc: VmRSS now, VmHWM at most; 0 after its end."""
    try:
        found = re.search(rf"{kind}:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:  # it ended just now
        return 0
    return 1024 * int(found[1]) if found else 0


def cpu_s(pid: int) -> float:
    """The user and system time of a running process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # see man 5 proc


def _has_line(file: Path, start: int) -> bool:
    try:
        with file.open("rb") as lines:
            lines.seek(start)
            return lines.readline().endswith(b"\n")
    except FileNotFoundError:
        return False
