"""The real command ends with every exit code of docs/exit-codes.md."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, breaking, run, start
from documents import page
from endpoint import Endpoint
from inside import finish

Photos = Callable[..., Path]
Ends = Callable[[Endpoint], int]


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *more)


def code_of(*args: str, **variables: str) -> int:
    """The exit code; only a bug may print a traceback."""
    done = run(*args, **variables)
    assert ("Traceback" in done.stderr) == (done.returncode == 1)
    return done.returncode


def with_a_bug(endpoint: Endpoint) -> int:
    broken = "import vlmbatch.prompts\nvlmbatch.prompts.prompt_text = lambda options: 1 / 0"
    return code_of(*arguments(endpoint), **breaking(Path("broken"), broken))


def with_a_broken_image(endpoint: Endpoint) -> int:
    Path("photos/bad.jpg").write_text("no image")
    return code_of(*arguments(endpoint))


def with_a_full_disk(endpoint: Endpoint) -> int:
    return run(*arguments(endpoint), command=("prlimit", "--fsize=900", *COMMAND)).returncode


def with_no_time_left(endpoint: Endpoint) -> int:
    endpoint.script = ["ok", *["held"] * 12]
    return code_of(*arguments(endpoint, "-c", "1", "--max-duration", "2", "--drain", "0"))


def while_another_runs(endpoint: Endpoint) -> int:
    endpoint.script = ["held"]
    first = start(*arguments(endpoint))
    endpoint.until(lambda: bool(endpoint.questions))
    code = code_of(*arguments(endpoint))
    endpoint.released = True
    assert first.wait(timeout=240) == 0
    return code


def when_sent(number: signal.Signals) -> Ends:
    def end(endpoint: Endpoint) -> int:
        endpoint.script = ["held"] * 12
        running = start(*arguments(endpoint, "-c", "1"))
        endpoint.until(lambda: bool(endpoint.questions))
        running.send_signal(number)
        endpoint.script, endpoint.released = [], True
        return running.wait(timeout=240)

    return end


ENDS: dict[int, Ends] = {
    0: lambda endpoint: code_of(*arguments(endpoint)),
    1: with_a_bug,
    2: lambda endpoint: code_of(*arguments(endpoint, "-m", "no-such-model")),
    3: with_a_broken_image,
    4: lambda _: code_of(*arguments(Endpoint(port=9)), "--give-up-after", "0"),
    5: with_a_full_disk,
    6: with_no_time_left,
    75: while_another_runs,
    129: when_sent(signal.SIGHUP),
    130: when_sent(signal.SIGINT),
    143: when_sent(signal.SIGTERM),
}


@pytest.mark.parametrize("code", ENDS)
def test_the_command_ends_with(photos: Photos, endpoint: Endpoint, code: int) -> None:
    """Each end of a run has its exit code, and afterwards the same command does the rest."""
    photos(12)
    assert ENDS[code](endpoint) == code
    endpoint.script = []
    Path("photos/bad.jpg").unlink(missing_ok=True)
    finish(endpoint.url, overwrite=code == 3)
    assert len(Path("o.jsonl").read_text().splitlines()) == 12


def test_the_page_explains_each() -> None:
    """The table of exit codes in docs/exit-codes.md has exactly one row for every code."""
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", page("docs/exit-codes.md"), re.MULTILINE)]
    assert sorted(listed) == sorted(ENDS)


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-"])
def test_a_failing_standard_error_keeps_the_exit_code(stream: str) -> None:
    """A message that cannot be written changes no exit code."""
    done = run(command=("bash", "-c", f"{' '.join(COMMAND)} run --bogus {stream}"))
    assert done.returncode == 2


def test_a_deleted_working_folder_is_reported(photos: Photos, endpoint: Endpoint, tmp_path: Path) -> None:
    """A command in a deleted working folder ends with its exit code and no traceback."""
    folder = photos(1)
    gone = f"mkdir gone; cd gone; rmdir ../gone; {' '.join(COMMAND)} run"
    for paths, code in ((f"{folder} -o o.jsonl", 5), (f"{folder} --summary s", 2), (".", 2)):
        shell = f"{gone} {paths} -b ollama --base-url {endpoint.url}"
        done = run(command=("bash", "-c", shell))
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
