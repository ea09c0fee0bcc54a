"""Stand-ins for the programs of a Slurm cluster, and jobs whose server has a free port."""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

FIRST_PORT = 20000  # the port of a job is this plus the last digits of its number
PORTS = 10_000
STAND_INS = {
    "vllm": 'echo "$@" >> served; exec sleep 600',
    "ollama": 'echo "$@" >> served; exec sleep 600',
    "scontrol": 'echo "$@" >> requeued',
    "vlmbatch": f'exec {sys.executable} -m vlmbatch "$@"',
}


def free_job() -> int:
    """The number of a job whose port is free; processes begin to search at different numbers."""
    for step in range(PORTS):
        job = (os.getpid() + step) % PORTS
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", FIRST_PORT + job))
            return job
    raise AssertionError("no port is free")


def put_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins into the folder bin, and this folder first on PATH."""
    tools = Path("bin")
    tools.mkdir()
    for name, line in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools.absolute()), prepend=":")
