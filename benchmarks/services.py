"""Starts services in processes of their own, and sends them requests from another."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import CONTENDERS, cpu_s, environment, flags, memory

GENERATOR = Path(__file__).parent / "load_generator.py"
LOOK_S = 0.25
"""Seconds between two samples of memory."""
START_S = 60.0
TRY_AGAIN = ("429", "503")
_LISTENING = re.compile(r"(?:running on|at) (http://\S+) \(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A service under load.

    `told` are the figures of load_generator.py, `cpu_s` is the user and system time of the service, and
    `resident` the samples of its memory (VmRSS) in bytes.
    """

    told: dict[str, Any]
    cpu_s: float
    resident: tuple[int, ...]

    @property
    def answered(self) -> int:
        """The number of requests with an answer."""
        return self._statuses.get("200", 0)

    @property
    def refused(self) -> int:
        """The number of requests that the client may send again later."""
        return sum(self._statuses.get(status, 0) for status in TRY_AGAIN)

    @property
    def failures(self) -> dict[str, int]:
        """Other statuses, connections that broke and answers that came twice, with their numbers."""
        others = {status: n for status, n in self._statuses.items() if status not in ("200", *TRY_AGAIN)}
        repeated = {"repeated": self.told["repeated"]} if self.told["repeated"] else {}
        return others | self.told["broken"] | repeated

    @property
    def _statuses(self) -> dict[str, int]:
        statuses: dict[str, int] = self.told["statuses"]
        return statuses


@contextmanager
def vlmbatch(engine: str, log: Path, **options: object) -> Iterator[Service]:
    """The real command in front of this engine, with its log in a file."""
    command = [sys.executable, "-m", "vlmbatch", "serve"]
    command += flags(port=0, backend="ollama", base_url=engine, **options)
    with _started(command, environment(), log) as service:
        yield service


@contextmanager
def plain(engine: str, log: Path) -> Iterator[Service]:
    """benchmarks/contenders/plain_app.py in front of this engine, with its log in a file."""
    command = [sys.executable, "-m", "uvicorn", "--port", "0", "--app-dir", str(CONTENDERS), "plain_app:app"]
    with _started(command, {**environment(), "OLLAMA_HOST": engine}, log) as service:
        yield service


def load(service: Service, path: str, **options: object) -> Loaded:
    """Send requests to this path, with the options of load_generator.py.

    Raises:
        RuntimeError: the clients ended with an error.
    """
    before = cpu_s(service.pid)
    command = [sys.executable, str(GENERATOR), *flags(url=service.url + path, **options)]
    resident = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as sending:
        while sending.poll() is None:  # the figures are a short line, which fits into the pipe
            resident.append(memory(service.pid, "VmRSS"))
            time.sleep(LOOK_S)
        assert sending.stdout is not None
        told = sending.stdout.read()
    if sending.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {sending.returncode}")
    return Loaded(told=json.loads(told), cpu_s=cpu_s(service.pid) - before, resident=tuple(resident))


@contextmanager
def _started(command: Sequence[str], variables: dict[str, str], log: Path) -> Iterator[Service]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=variables) as process:
        try:
            yield Service(url=_url(process, log), pid=process.pid)
        finally:
            process.terminate()


def _url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        if found := _LISTENING.search(log.read_text()):
            return found[1]
        time.sleep(LOOK_S)
    raise RuntimeError(f"the service does not listen:\n{log.read_text()}")
