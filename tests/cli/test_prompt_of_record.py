"""The real command: each record leads to the text of its prompt and to the settings of its run."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command import COMMAND, records, run
from endpoint import Endpoint

PROMPT = "Name the objects:\n\u732b \U0001f600 \x07"


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-q", "-b", "vllm", "-m", "tiny-vision", "--base-url", endpoint.url, *more)


def runs() -> list[dict[str, dict[str, str]]]:
    """All lines of FILE.runs."""
    return records(Path("o.jsonl.runs").read_text())


@pytest.mark.parametrize("is_file", [False, True])
def test_a_record_in_a_pipe_has_the_text(folder: Path, endpoint: Endpoint, is_file: bool) -> None:
    """A record that goes to standard output has the prompt as it was sent, right after its name."""
    Path("prompt.txt").write_text(PROMPT + "\n")
    typed = ("--prompt-file", "prompt.txt") if is_file else ("--prompt", PROMPT)
    done = run(*arguments(endpoint, *typed))
    assert done.returncode == 0, done.stderr
    (record,) = records(done.stdout)
    assert record["prompt_text"] == PROMPT
    assert list(record)[3:5] == ["prompt", "prompt_text"]
    (question,) = endpoint.questions
    assert json.dumps(PROMPT) in json.dumps(question.body)


def test_a_record_in_a_file_leads_to_the_text(folder: Path, endpoint: Endpoint) -> None:
    """With --append, `run` of each record names a line of FILE.runs with the text that was sent."""
    assert run(*arguments(endpoint, "-o", "o.jsonl", "-p", "one")).returncode == 0
    assert run(*arguments(endpoint, "-o", "o.jsonl", "-p", "two", "--append")).returncode == 0
    prompts = {line["run"]: line["prompts"] for line in runs()}
    written = records(Path("o.jsonl").read_text())
    assert [prompts[record["run"]][record["prompt"]] for record in written] == ["one", "two"]
    assert not any("prompt_text" in record for record in written)


def test_a_masked_key_does_not_change_the_run(folder: Path, endpoint: Endpoint) -> None:
    """A key in --extra-body is in no file, and the same command goes on with the output."""
    typed = arguments(endpoint, "-o", "o.jsonl", "--extra-body", '{"api_key": "first-s3cret"}')
    assert [run(*typed).returncode for _ in range(2)] == [0, 0]
    assert (len(endpoint.questions), len(runs())) == (1, 1)
    assert not [path for path in Path().iterdir() if path.is_file() and "s3cret" in path.read_text()]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_file_of_another_user_is_an_error_before_the_first_request(
    folder: Path, endpoint: Endpoint
) -> None:
    """If FILE.runs cannot be written, the command ends with 5, names the file, and sends no request."""
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    Path("o.jsonl.runs").touch(0o444)
    done = run(*arguments(endpoint, "-o", "o.jsonl"), command=(*plain, *COMMAND))
    assert done.returncode == 5
    assert "o.jsonl.runs: permission denied; move it away" in done.stderr
    assert endpoint.questions == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_file_that_needs_no_new_line_may_be_read_only(folder: Path, endpoint: Endpoint) -> None:
    """If FILE.runs is read-only, the same command goes on, and another prompt is an error that names it."""
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    asked = arguments(endpoint, "-o", "o.jsonl")
    assert run(*asked).returncode == 0
    Path("o.jsonl.runs").chmod(0o444)
    assert run(*asked, command=(*plain, *COMMAND)).returncode == 0
    refused = run(*asked, "--append", "-p", "two", command=(*plain, *COMMAND))
    assert refused.returncode == 5
    assert "o.jsonl.runs: permission denied; move it away" in refused.stderr
    assert len(endpoint.questions) == 1
