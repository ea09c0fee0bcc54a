"""Runs commands inside this process, which is much faster than a new Python process for each.

A test of a whole process, its signals or its streams uses command.py instead.
"""

import asyncio
import os
import subprocess

from command import environment
from running import ran
from typer.testing import CliRunner

from vlmbatch.cli import app


def called(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The result as from `command.run`; not for a `run` that sends requests, which may end its process."""
    kept = environment(**variables)
    changes = {**dict.fromkeys(os.environ.keys() - kept.keys()), **kept}
    done = CliRunner().invoke(app, args, prog_name="vlmbatch", env=changes, catch_exceptions=False)
    return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)


def finish(url: str, **options: object) -> None:
    """Answer all photos without a record in o.jsonl at this Ollama; asserts that none fails."""
    done = asyncio.run(ran(backend="ollama", base_url=url, output="o.jsonl", **options))
    assert done.error is None, done.error
    assert done.summary is not None
    assert not done.summary.stopped
    assert done.summary.failed + done.summary.failed_before + done.summary.unreadable == 0
