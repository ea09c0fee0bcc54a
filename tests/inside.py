"""Runs commands inside this process, which costs a fraction of starting Python for each.

Where a test is about a process of its own, its signals or its streams, command.py starts one.
"""

import asyncio
import os
import subprocess

from command import environment
from running import ran
from typer.testing import CliRunner

from vlmbatch.cli import app


def called(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `command.run` returns, of any command but a `run` that asks: that may end its process."""
    kept = environment(**variables)
    changes = {**dict.fromkeys(os.environ.keys() - kept.keys()), **kept}
    done = CliRunner().invoke(app, args, prog_name="vlmbatch", env=changes, catch_exceptions=False)
    return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)


def finish(url: str, **options: object) -> None:
    """Ask this Ollama about all photos that have no record in o.jsonl: what would end with exit code 0."""
    done = asyncio.run(ran(backend="ollama", base_url=url, output="o.jsonl", **options))
    assert done.error is None, done.error
    assert done.summary is not None
    assert not done.summary.stopped
    assert done.summary.failed + done.summary.failed_before + done.summary.unreadable == 0
