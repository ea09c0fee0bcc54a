"""Starts endpoints in processes of their own, so that their CPU does not count for the client."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

HERE = Path(__file__).parent


@contextmanager
def slots(number: int, latency_s: float) -> Iterator[str]:
    """Start an endpoint with this number of slots and this latency; yields its URL."""
    with _serving("slots_server.py", "--slots", str(number), "--latency", str(latency_s)) as url:
        yield url


@contextmanager
def llama_cpp() -> Iterator[str]:
    """Start llama.cpp with the demonstration model, as an OpenAI-compatible server; yields its URL."""
    with _serving("llama_server.py") as url:
        yield url


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start Redis without persistence at a free port; yields its URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL) as process:
        try:
            while not _listens(port):
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with closing(socket.socket()) as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def reset(url: str) -> None:
    """Restart the statistics of the slots."""
    urlopen(Request(f"{url}/stats", method="POST")).close()


def kill(url: str) -> None:
    """End an endpoint as a crash would: all connections break off, and the port refuses new ones."""
    with suppress(OSError, HTTPException):
        urlopen(Request(f"{url}/die", method="POST")).close()


def stats(url: str) -> dict[str, Any]:
    """The statistics of the slots since the last reset."""
    with urlopen(f"{url}/stats") as reply:
        told: dict[str, Any] = json.load(reply)
        return told


@contextmanager
def _serving(script: str, *options: str) -> Iterator[str]:
    command = [sys.executable, str(HERE / script), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
