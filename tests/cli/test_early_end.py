"""A run that ends early says how many images are left, and how to go on with them."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, run, start
from endpoint import Endpoint
from terminal import Terminal

from vlmbatch.cli.early_end import EarlyEnd
from vlmbatch.config import RunConfig
from vlmbatch.events import RunFinished, RunStarted, TotalKnown
from vlmbatch.records import Endpoint as Found
from vlmbatch.records import Summary

Photos = Callable[..., Path]
TO_FILE = {"output": "o.jsonl"}
GOES_ON = "the same command goes on where this run ended"
AGAIN = (
    "the same command begins again with the first image; "
    "add -o answers.jsonl to keep records and to go on next time"
)
EARLY = Summary(total=20, succeeded=20, stopped=True)
RESUMED = Summary(total=20, succeeded=5, skipped=15, stopped=True)
WHOLE = Summary(total=20, succeeded=20)


@pytest.mark.parametrize(
    ("options", "summary", "total", "code", "told"),
    [
        (TO_FILE, EARLY, 50, 130, f"30 of 50 images left; {GOES_ON}"),
        (TO_FILE, EARLY, 50, 4, f"30 of 50 images left; {GOES_ON}"),
        (TO_FILE, RESUMED, 50, 6, f"at most 30 of 50 images left; {GOES_ON}"),
        (TO_FILE, EARLY, 19, 5, f"0 of 19 images left; {GOES_ON}"),
        (TO_FILE, EARLY, None, 6, f"20 images done, the other images are left; {GOES_ON}"),
        (
            TO_FILE | {"overwrite": True},
            EARLY,
            50,
            6,
            "30 of 50 images left; the same command without --overwrite goes on where this run ended",
        ),
        ({}, EARLY, 50, 130, f"30 of 50 images left; {AGAIN}"),
        (TO_FILE, WHOLE, 20, 0, None),
        (TO_FILE, WHOLE, 20, 3, None),
        ({}, EARLY, 50, 0, None),
        (
            TO_FILE | {"limit": 20},
            WHOLE,
            None,
            0,
            f"--limit 20 is reached; if there are further images: {GOES_ON}",
        ),
        (TO_FILE | {"limit": 21}, WHOLE, None, 0, None),
        ({"limit": 20}, WHOLE, None, 0, None),
        (TO_FILE, Summary(stopped=True), 50, 2, None),
        (TO_FILE | {"quiet": True}, EARLY, 50, 143, None),
        (TO_FILE | {"quiet": True}, EARLY, 50, 6, None),
        (TO_FILE | {"quiet": True}, EARLY, 50, 4, f"30 of 50 images left; {GOES_ON}"),
        (TO_FILE | {"quiet": True, "limit": 20}, WHOLE, None, 0, None),
    ],
)
def test_the_sentence(
    options: dict[str, object], summary: Summary, total: int | None, code: int, told: str | None
) -> None:
    """The sentence has the number if it is known and the true way to go on; a whole run needs none."""
    end = EarlyEnd(RunConfig.of("photos", **options))
    end(RunStarted(endpoint=Found(backend="b", url="u", model="m"), run="r", concurrency=1, output="-"))
    if total is not None:
        end(TotalKnown(total=total))
    end(RunFinished(summary=summary))
    assert end.sentence(code) == told


def test_a_collection_goes_on_without_a_file() -> None:
    """A collection to standard output goes on where it ended, since its records have left the queue."""
    end = EarlyEnd(RunConfig.of("photos"), goes_on=True)
    end(RunStarted(endpoint=Found(backend="queue", url="u", model="m"), run="r", concurrency=0, output="-"))
    end(TotalKnown(total=50))
    end(RunFinished(summary=EARLY))
    assert end.sentence(6) == f"30 of 50 images left; {GOES_ON}"


def test_a_run_that_did_not_start_has_no_sentence() -> None:
    """Before the start no image is done, and nothing is left to go on from."""
    assert EarlyEnd(RunConfig.of("photos")).sentence(4) is None


def test_ctrl_c_says_what_is_left(photos: Photos, endpoint: Endpoint) -> None:
    """After Ctrl-C the last event is a notice with the number of images that are left."""
    photos(30)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 5 else "held"
    asked = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", "-c", "1")
    running = start(*asked, "--log-json", stderr=subprocess.PIPE)
    assert running.stderr is not None
    while json.loads(running.stderr.readline())["event"] != "total_known":
        pass
    endpoint.until(lambda: len(endpoint.questions) > 5)
    running.send_signal(signal.SIGINT)
    while json.loads(running.stderr.readline())["event"] != "run_stopping":
        pass
    endpoint.released = True
    _, told = running.communicate(timeout=240)
    last = json.loads(told.splitlines()[-1])
    left = 30 - len(Path("o.jsonl").read_text().splitlines())
    assert (last["event"], last["message"]) == ("notice", f"{left} of 30 images left; {GOES_ON}")


def test_an_error_in_the_middle_is_followed_by_what_is_left(photos: Photos, endpoint: Endpoint) -> None:
    """The error comes first, then the number of images left. A whole run and | head print no number."""
    photos(3)
    asked = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-c", "1")
    head = run(command=("bash", "-c", f"{' '.join((*COMMAND, *asked))} | head -0"))
    assert " left; " not in head.stderr
    assert " left; " not in run(*asked).stderr
    before = len(endpoint.questions)
    endpoint.script = lambda request: "ok" if len(endpoint.questions) < before + 2 else "down"
    done = run(*asked, "-q", "--give-up-after", "0")
    assert done.returncode == 4, done.stderr
    assert "no connection to " in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[-1].endswith(f"; {AGAIN}"), done.stderr


def test_the_second_ctrl_c_is_told_below_the_bar(photos: Photos, endpoint: Endpoint) -> None:
    """On a terminal the last words have a line of their own."""
    photos(5)
    endpoint.script = ["ok", *["hang"] * 9]
    with Terminal("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl") as terminal:
        terminal.until("1/5")
        terminal.send_signal(signal.SIGINT)
        terminal.until("stopping: ")
        terminal.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
        assert any(row.startswith("vlmbatch: ended at once: ") for row in terminal.rows), terminal.rows
