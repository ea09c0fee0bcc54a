"""docs/deployment.md: the commands of its checklist show what the page says, and it has all alerts."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, environment
from documents import page, section, table
from endpoint import Endpoint, Model, Received
from serving import KEY, command_serving

PAGE = page("docs/deployment.md")
ROWS = table(section(PAGE, "## Checklist"))
NEEDS_DOCKER = ("container",)
MODEL = "tiny-vision"


def test_the_checklist_is_complete() -> None:
    """The checklist has a command for each part that a production system needs."""
    parts = (
        *("model", "engine", "endpoints", "preprocessing", "retries", "logs", "memory", "metrics"),
        *("health", "rate limits", "load test", "container"),
    )
    assert tuple(row[0] for row in ROWS) == parts
    assert all(command.startswith("`") for _, command, _ in ROWS)


@pytest.mark.long
def test_each_command_of_the_checklist_shows_what_the_page_says(
    photos: Callable[..., Path], tmp_path: Path
) -> None:
    """Each command, typed beside a real service, exits with 0 and prints the words of the last column."""
    photos(3)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "vlmbatch").write_text(f'#!/bin/sh\nexec {COMMAND[0]} -m vlmbatch "$@"\n')
    (tools / "vlmbatch").chmod(0o755)
    failures = ["500"]

    def once(_: Received) -> str:
        """Fails the first question of the row about retries."""
        return failures.pop() if failures and Path("retries.jsonl.lock").exists() else "ok"

    with Endpoint(models={MODEL: Model(vision=True)}, script=once) as endpoint:
        keys = ("--rate", "60/minute")
        with command_serving(endpoint, *keys, folder=tmp_path, VLMBATCH_SERVICE_KEY=f"a:{KEY}") as served:
            env = environment(
                OLLAMA_HOST=endpoint.url, VLMBATCH_BACKEND="ollama", VLMBATCH_MODEL=MODEL, KEY=KEY
            )
            env["PATH"] = f"{tools}:{env['PATH']}"
            for what, command, seen in ROWS:
                if what in NEEDS_DOCKER:
                    continue
                typed = command.strip("`").replace("http://127.0.0.1:8000", served[0])
                typed = typed.replace("--seconds 60", "--seconds 0.1 --warm-up 0 --levels 1")
                done = subprocess.run(
                    ["bash", "-ec", typed], env=env, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{what}: {done.stderr}"
                for word in re.findall(r"`([^`]+)`", seen):
                    if word != "--rate":
                        assert word in done.stdout + done.stderr, f"{what}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", sorted(re.findall("alert: (.*)", page("deploy/prometheus/alerts.yml"))))
def test_the_page_has_each_alert(name: str) -> None:
    """The table of alerts has each alert of the file."""
    assert f"`{name}`" in section(PAGE, "## Watch it")
