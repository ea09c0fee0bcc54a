"""Starts endpoints in processes of their own, so that their time is not the client's; knows no client."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

HERE = Path(__file__).parent


@contextmanager
def slots(number: int, latency_s: float) -> Iterator[str]:
    """An endpoint that works on so many questions at once, each for so long; yields its URL."""
    with _serving("slots_server.py", "--slots", str(number), "--latency", str(latency_s)) as url:
        yield url


@contextmanager
def llama_cpp() -> Iterator[str]:
    """llama.cpp with the demonstration model, as an OpenAI-compatible server; yields its URL."""
    with _serving("llama_server.py") as url:
        yield url


def reset(url: str) -> None:
    """Let the slots be counted from 0."""
    urlopen(Request(f"{url}/stats", method="POST")).close()


def kill(url: str) -> None:
    """End one as a crash would: all connections break off, and the port refuses others."""
    with suppress(OSError, HTTPException):
        urlopen(Request(f"{url}/die", method="POST")).close()


def stats(url: str) -> dict[str, Any]:
    """How busy the slots were since then."""
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
