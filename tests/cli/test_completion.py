"""Completion in a real shell: commands, options and values; names of files where nothing else fits."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from command import COMMAND, environment, run
from endpoint import Endpoint
from waiting import until

from vlmbatch.cli.completion import _joined
from vlmbatch.cli.front import COMMANDS
from vlmbatch.config import options
from vlmbatch.config.endpoint import BackendName

CLOSED = "http://127.0.0.1:9"
LINE = """
source ./script
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_vlmbatch_completion vlmbatch
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
"""Lets bash complete the last of the words, which are broken at colons as bash breaks them."""


class Bash:
    """A bash without start-up files that has sourced the completion script of the command."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = folder / "bin" / "vlmbatch"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        command.chmod(0o755)
        self._path = f"{command.parent}:{environment()['PATH']}"
        self.run(_VLMBATCH_COMPLETE="source_bash", line="vlmbatch > ./script")

    def run(self, line: str, **variables: str) -> list[str]:
        """The lines that a command line prints; it must print nothing on standard error."""
        done = subprocess.run(
            ["bash", "--norc", "--noprofile", "-c", line],
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=environment(**{**variables, "PATH": self._path}),
            timeout=240,
            check=False,
        )
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    def complete(self, *words: str, **variables: str) -> list[str]:
        """The completions of the last word."""
        return self.run(LINE.format(words=shlex.join(("vlmbatch", *words))), **variables)


@pytest.fixture
def bash(tmp_path: Path) -> Bash:
    """A bash with completion, in an empty folder."""
    if shutil.which("bash") is None:
        pytest.skip("this machine has no bash")
    return Bash(tmp_path)


def test_commands_options_and_values_are_completed(bash: Bash) -> None:
    """The Tab key completes commands, options, engines and lists of words; for files bash does it itself."""
    assert set(COMMANDS) <= set(bash.complete(""))
    assert bash.complete("run", "--max-s") == ["--max-size"]
    assert bash.complete("run", "--backend", "") == list(get_args(BackendName))
    assert bash.complete("doctor", "-b", "ol") == ["ollama"]
    assert bash.complete("run", "--backend", "=", "ol") == ["ollama"]
    assert bash.complete("run", "--accept", "") == ["length", "loop"]
    assert bash.complete("run", "--fallback-on", "rejected,") == [
        "rejected,unavailable",
        "rejected,bad-answer",
    ]
    for typed in (("run", ""), ("run", "--prompt-file", ""), ("run", "photos", "-o", "ans")):
        assert bash.complete(*typed) == []


def test_models_of_the_endpoint_are_completed(bash: Bash, endpoint: Endpoint) -> None:
    """--model is completed with models that see, also behind a colon, of the endpoint that is named."""
    by_flag = ("run", "-b", "ollama", "--base-url", endpoint.url)
    broken = (
        "--base-url",
        "http",
        ":",
        f"//127.0.0.1:{endpoint.port}".rpartition(":")[0],
        ":",
        str(endpoint.port),
    )
    until(lambda: bash.complete(*by_flag, "--model", "") == ["tiny-vision:latest"])
    until(lambda: bash.complete("run", "-m", "tiny", OLLAMA_HOST=endpoint.url) == ["tiny-vision:latest"])
    until(lambda: bash.complete("doctor", *broken, "-b", "ollama", "-m", "tiny-vision", ":") == ["latest"])
    assert [
        request.path for request in endpoint.requests if request.path not in ("/api/tags", "/api/ps")
    ] == []
    assert endpoint.questions == []


def test_without_an_answer_no_model_is_completed(bash: Bash) -> None:
    """An endpoint that is down, hangs or refuses, and a wrong option, give no completion and no message."""
    with Endpoint(routes={"/api/tags": "hang"}) as hanging, Endpoint(routes={"/api/tags": "401"}) as refusing:
        for url in (CLOSED, hanging.url, refusing.url, "no-url"):
            assert bash.complete("run", "--base-url", url, "-b", "ollama", "--model", "") == []


def test_each_completion_is_one_line_in_fish() -> None:
    """In fish each completion is a line of its own with its whole help, however long the help is."""
    asked = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": "vlmbatch run --"}
    lines = run(_VLMBATCH_COMPLETE="complete_fish", **asked).stdout.splitlines()
    assert len(lines) > len([o for o in options() if o.group not in ("service", "jobs")])
    assert [line for line in lines if not line.startswith("--")] == []


def test_each_option_with_fixed_words_is_completed() -> None:
    """Each option whose values are fixed words declares them, so that the shell can complete them."""
    fixed = [o.name for o in options() if o.spec.choices or o.spec.words]
    assert {"backend", "accept", "fallback_on"} <= set(fixed)


@pytest.mark.parametrize(
    ("broken", "joined", "place"),
    [
        ("vlmbatch run --model qwen : 7", "vlmbatch run --model qwen:7", 3),
        ("vlmbatch run --model qwen :", "vlmbatch run --model qwen:", 3),
        ("vlmbatch run --model = qwen", "vlmbatch run --model=qwen", 2),
        ("vlmbatch run --base-url http : //h : 80/v1 -m", "vlmbatch run --base-url http://h:80/v1 -m", 4),
        ("vlmbatch run a", "vlmbatch run a", 2),
    ],
)
def test_broken_words_are_joined(broken: str, joined: str, place: int) -> None:
    """Words that bash has broken at colons and equals signs are put together again."""
    words = broken.split(" ")
    assert _joined(words, len(words) - 1) == (joined.split(" "), place)


@pytest.mark.parametrize("number", [{}, {"COMP_CWORD": ""}, {"COMP_CWORD": "x"}, {"COMP_CWORD": "-1"}])
def test_an_odd_number_of_a_word_is_no_bug(number: dict[str, str]) -> None:
    """If COMP_CWORD is missing or is no number, the completion prints no traceback."""
    done = run(_VLMBATCH_COMPLETE="complete_bash", COMP_WORDS="vlmbatch r", **number)
    assert (done.returncode, done.stderr) == (0, "")
