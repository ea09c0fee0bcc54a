"""Runs a command inside this process, which costs a fraction of starting Python for it.

Not for a `run` that asks: it takes over the signals of its process, and may end that.
"""

import os
import subprocess

from command import environment
from typer.testing import CliRunner

from vlmbatch.cli import app


def called(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `command.run` returns; only an exception that is none of ours comes through."""
    kept = environment(**variables)
    changes = {**dict.fromkeys(os.environ.keys() - kept.keys()), **kept}
    done = CliRunner().invoke(app, args, prog_name="vlmbatch", env=changes, catch_exceptions=False)
    return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)
