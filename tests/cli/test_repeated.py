"""Options that are given more than once in one command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from inside import called

Photos = Callable[..., Path]
CLOSED = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("-p", "one", "-p", "two"), "--prompt is given twice; keep one"),
        (("-p", "one", "--prompt=two", "-pthree"), "--prompt is given 3 times; keep one"),
        (("-p", "one", "-p", "one"), "--prompt is given twice; keep one"),
        (("--prompt-file", "a", "--prompt-file", "b"), "--prompt-file is given twice; keep one"),
        (("--schema", "{}", "--schema", "{}"), "--schema is given twice; keep one"),
        (("-p", "one", "--prompt-file", "a"), "--prompt and --prompt-file are both set; keep one"),
    ],
)
@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_second_prompt_or_schema_is_an_error(
    folder: Path, command: str, typed: tuple[str, ...], told: str
) -> None:
    """A prompt or schema that is given twice, in any spelling, is exit code 2, since one would be lost."""
    done = called(command, "photos", *typed)
    assert done.returncode == 2
    assert told in done.stderr


def test_of_another_option_the_last_value_is_used(folder: Path) -> None:
    """Of another option the last value counts, as with aliases of a shell, and a note names the option."""
    done = called(*("run", "photos", "--dry-run", "--max-size", "512", "--max-size=32", "-m", "a", "-m", "b"))
    assert done.returncode == 0, done.stderr
    assert "--max-size is given twice; the last one is used" in done.stderr
    assert "--model is given twice; the last one is used" in done.stderr
    assert ("1 at 32x24" in done.stderr, "model b" in done.stderr) == (True, True)


def test_the_note_shows_no_secret() -> None:
    """The note about a repeated key shows neither of its values."""
    keys = ("--api-key", "first-s3cret", "--api-key", "second-s3cret")
    done = called("models", "--base-url", CLOSED, "--give-up-after", "0", *keys)
    assert "--api-key is given twice" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_a_note_is_an_event_with_log_json(folder: Path) -> None:
    """With --log-json the note is a JSON line like all others."""
    done = called("run", "photos", "--dry-run", "--log-json", "--quality", "5", "--quality", "6")
    told = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert "--quality is given twice; the last one is used" in told


@pytest.mark.parametrize(
    "typed",
    [
        ("--quiet", "--quality", "5", "--quality", "6"),
        ("--include", "*.jpg", "--include", "*.png"),
        ("--option", "num_ctx=1", "--option", "top_k=2", "-b", "ollama"),
        ("-p", "one"),
        ("--quality", "6"),
        ("--", "--quality", "--quality"),
    ],
)
def test_no_note_without_a_repeated_option(folder: Path, typed: tuple[str, ...]) -> None:
    """Repeatable options, defaults and PATHs are no repetition, and --quiet prints no note."""
    Path("vlmbatch.toml").write_text('quality = 7\nprompt = "two"\n')
    Path("--quality").touch()
    done = called("run", "photos", "--dry-run", *typed, VLMBATCH_QUALITY="8", VLMBATCH_PROMPT="three")
    assert done.returncode == 0, done.stderr
    assert "is given" not in done.stderr
