"""`--summary FILE`: the summary of a run as JSON, for every kind of end."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, breaking, environment, run, start
from endpoint import Endpoint

Photos = Callable[..., Path]


ONCE_ASKED = """
import os
from vlmbatch.pipeline import time_limit
time_limit.LONGEST_WAIT_S = 0.01
clock = lambda: 99.0 if os.path.exists("over") else 0.0
time_limit.TimeLimit.__init__.__kwdefaults__["clock"] = clock
"""
"""Code for `breaking`: the time is over when the file `over` is there."""


def asking(url: str) -> list[str]:
    return ["run", "photos", "-b", "ollama", "--base-url", url, "-o", "o.jsonl", "--summary", "s.json"]


def summary() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Path("s.json").read_text())
    return told


def test_a_finished_run_is_summed_up(photos: Photos, endpoint: Endpoint) -> None:
    """The summary has counts, failures by kind, tokens, endpoint and exit code; the next run replaces it."""
    (photos(4) / "bad.jpg").write_text("no image")
    assert run(*asking(endpoint.url)).returncode == 3
    told = summary()
    expected = {
        "v": 1, "exit_code": 3, "error": None, "stopped": False, "total": 5, "succeeded": 4, "failed": 1,
        "skipped": 0, "failures": {"bad_image": 1}, "model": "tiny-vision", "backend": "ollama",
        "endpoint": endpoint.url, "output": "o.jsonl",
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected
    assert told["usage"]["output_tokens"] > 0
    assert told["started_at"] <= told["ended_at"]
    assert told["run"] == json.loads(Path("o.jsonl").read_text().splitlines()[0])["run"]
    assert run(*asking(endpoint.url), "--max-failures", "1").returncode == 0
    assert (summary()["exit_code"], summary()["skipped"], summary()["failed_before"]) == (0, 4, 1)


def test_a_run_that_never_started_has_no_counts(photos: Photos) -> None:
    """Without an endpoint the summary has the error and the exit code, and null for unknown values."""
    photos(1)
    assert run(*asking("http://127.0.0.1:9"), "--give-up-after", "0").returncode == 4
    told = summary()
    assert (told["exit_code"], told["total"], told["model"]) == (4, None, None)
    assert "ollama serve" in told["error"]


def test_a_stopped_run_says_so(photos: Photos, endpoint: Endpoint) -> None:
    """After a signal or --max-duration the summary is marked as stopped, with that exit code and no error."""
    photos(30)
    endpoint.script = lambda request: "ok" if request.chat == 0 else "held"
    running = start(*asking(endpoint.url), "-c", "2", stderr=subprocess.DEVNULL)
    endpoint.until(lambda: len(endpoint.questions) >= 3)
    running.terminate()
    endpoint.script, endpoint.released = (), True
    assert running.wait(timeout=240) == 143
    told = summary()
    assert (told["exit_code"], told["stopped"], told["error"]) == (143, True, None)
    assert told["succeeded"] == len(Path("o.jsonl").read_text().splitlines())
    endpoint.script, endpoint.released = lambda request: "held", False
    limit = ("-c", "1", "--max-duration", "99", "--drain", "0")
    asked = len(endpoint.questions)
    hurrying = breaking(Path("hurrying"), ONCE_ASKED)
    running = start(*asking(endpoint.url), *limit, variables=hurrying, stderr=subprocess.DEVNULL)
    endpoint.until(lambda: len(endpoint.questions) > asked)
    Path("over").touch()
    assert running.wait(timeout=240) == 6
    assert (summary()["exit_code"], summary()["stopped"]) == (6, True)


def test_a_locked_out_run_keeps_the_reports_of_the_other_run(photos: Photos, endpoint: Endpoint) -> None:
    """An overlapping run exits 75, and changes neither the summary nor the metrics of the first run."""
    photos(3)
    endpoint.script = ["held"]
    old = {"s.json": '{"exit_code": 0}', "m.prom": "vlmbatch_running 0"}
    for name, text in old.items():
        Path(name).write_text(text)
    first = start(*asking(endpoint.url), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: bool(endpoint.questions))
    second = run(*asking(endpoint.url), "--metrics-file", "m.prom")
    assert second.returncode == 75
    assert {name: Path(name).read_text() for name in old} == old
    endpoint.released = True
    assert first.wait(timeout=240) == 0
    assert summary()["exit_code"] == 0


def test_a_summary_that_cannot_be_written_is_no_success(photos: Photos, endpoint: Endpoint) -> None:
    """A run whose summary cannot be written exits 5, and its records are complete."""
    photos(2)
    endpoint.script = ["held"]
    Path("gone").mkdir()
    running = start(*asking(endpoint.url)[:-1], "gone/s.json", stderr=subprocess.PIPE)
    endpoint.until(lambda: bool(endpoint.questions))
    Path("gone").rmdir()
    endpoint.released = True
    _, told = running.communicate(timeout=240)
    assert running.returncode == 5
    assert "--summary gone/s.json cannot be written" in told
    assert len(Path("o.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("photos/p0000.jpg", "vlmbatch did not write"),
        ("o.jsonl", "--output"),
        ("o.jsonl.lock", "--output"),
        ("o.jsonl.runs", "--output"),
        ("link", "--output"),
        ("-", "takes a file"),
        ("x" * 300, "name too long"),
    ],
)
@pytest.mark.parametrize("flag", ["--summary", "--metrics-file"])
def test_no_report_replaces_another_file(
    photos: Photos, endpoint: Endpoint, flag: str, place: str, told: str
) -> None:
    """A picture, the output, a file next to it or an impossible name as report exits 2; no file changes."""
    photo = photos(1) / "p0000.jpg"
    before = photo.read_bytes()
    Path("link").symlink_to("o.jsonl")
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", flag, place)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert photo.read_bytes() == before
    assert endpoint.questions == []


def test_one_file_is_no_place_for_two_reports(photos: Photos, endpoint: Endpoint) -> None:
    """The same path for both reports exits 2, and the summary still has that exit code."""
    photos(1)
    assert run(*asking(endpoint.url), "--metrics-file", "s.json").returncode == 2
    assert summary()["exit_code"] == 2


def test_a_summary_goes_where_a_link_leads(photos: Photos, endpoint: Endpoint) -> None:
    """The summary goes to the target of a link, which stays a link, and to /dev/stderr."""
    photos(1)
    Path("data").mkdir()
    Path("s.json").symlink_to("data/real.json")
    assert run(*asking(endpoint.url)).returncode == 0
    assert Path("s.json").is_symlink()
    assert summary()["exit_code"] == 0
    with Path("log").open("wb") as log:
        asked = [*COMMAND, *asking(endpoint.url)[:-1], "/dev/stderr"]
        subprocess.run(asked, stderr=log, env=environment(), timeout=240, check=True)
    assert '"exit_code": 0' in Path("log").read_text()


@pytest.mark.parametrize("flag", ["--summary", "--metrics-file"])
def test_no_secret_reaches_a_report(photos: Photos, endpoint: Endpoint, flag: str) -> None:
    """Neither report has the key, user or password, after a successful and after a failed run."""
    photos(1)
    url = endpoint.url.replace("//", "//me:pa55@")
    asked = ["run", "photos", "-b", "vllm", "-m", "tiny-vision", "--api-key", "s3cret", flag, "report"]
    for code, mode in ((2, "401"), (0, "ok")):
        endpoint.canary = mode
        assert run(*asked, "--base-url", url).returncode == code
        assert not [word for word in ("s3cret", "pa55") if word in Path("report").read_text()]
