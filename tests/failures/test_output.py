"""Failures of the output and of the standard streams: rows X1 to X7 of docs/failures.md."""

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, environment, records, run, start
from endpoint import Endpoint
from inside import finish
from selection import mostly_long

Photos = Callable[..., Path]
CLOSED = "http://127.0.0.1:9"


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *more)


def each_once(count: int) -> None:
    """Assert that the output has exactly one whole record for each photo."""
    counted = Counter(record["id"] for record in records(Path("o.jsonl").read_text()))
    assert counted == {f"photos/p{n:04}.jpg": 1 for n in range(count)}


@pytest.mark.parametrize(
    "torn",
    [
        b'{"v":1,"id":"photos/p0',
        b"\xf0\x9f",
        b"\n",
        b'{"v":1,"id":"photos/p0001.jpg"}'[:-1],
    ],
)
def test_x1_a_torn_tail_is_cut_off_and_stored(photos: Photos, endpoint: Endpoint, torn: bytes) -> None:
    """A torn last line is cut off, stored in another file and reported, and no record is lost."""
    folder = photos(3)
    finish(endpoint.url)
    whole = Path("o.jsonl").read_bytes()
    with Path("o.jsonl").open("ab") as output:
        output.write(torn)
    (folder / "p0003.jpg").write_bytes((folder / "p0000.jpg").read_bytes())
    again = run(*arguments(endpoint))
    assert again.returncode == 0
    assert Path("o.jsonl").read_bytes().startswith(whole)
    if torn.strip():
        (kept,) = Path().glob("o.jsonl.corrupt-*")
        assert kept.read_bytes() == torn
        assert kept.name in again.stderr
        each_once(4)


def test_x1_a_last_line_without_its_end_is_completed(photos: Photos, endpoint: Endpoint) -> None:
    """A last record without its newline counts as a record, and its image is not sent again."""
    photos(3)
    finish(endpoint.url)
    Path("o.jsonl").write_bytes(Path("o.jsonl").read_bytes()[:-1])
    assert run(*arguments(endpoint)).returncode == 0
    each_once(3)
    assert len(endpoint.questions) == 3


def test_x2_zeros_after_a_power_cut_are_cut_off(photos: Photos, endpoint: Endpoint) -> None:
    """A tail of zero bytes, as file systems leave it, moves to another file; the records before it count."""
    photos(3)
    finish(endpoint.url)
    lines = Path("o.jsonl").read_bytes().splitlines(keepends=True)
    Path("o.jsonl").write_bytes(b"".join(lines[:2]) + bytes(4096))
    assert run(*arguments(endpoint)).returncode == 0
    each_once(3)
    (kept,) = Path().glob("o.jsonl.corrupt-*")
    assert kept.read_bytes() == bytes(4096)


def test_x2_a_bad_line_in_the_middle_is_reported(photos: Photos, endpoint: Endpoint) -> None:
    """A bad line in the middle is reported with its count, and its image is sent again."""
    photos(3)
    finish(endpoint.url)
    lines = Path("o.jsonl").read_bytes().splitlines(keepends=True)
    Path("o.jsonl").write_bytes(lines[0] + bytes(100) + b"\n" + lines[2])
    again = run(*arguments(endpoint))
    assert again.returncode == 0
    assert "1 lines hold no record" in again.stderr or "1 line holds no record" in again.stderr
    good = [line for line in Path("o.jsonl").read_bytes().splitlines() if not line.startswith(b"\0")]
    assert len(records(line.decode() for line in good)) == 3
    assert len(endpoint.questions) == 4


def test_x3_a_rotated_output_ends_the_run(photos: Photos, endpoint: Endpoint) -> None:
    """If the output is renamed during the run, the run ends with exit code 5."""
    photos(40)
    endpoint.delay, endpoint.script = 0.2, ["ok", *["held"] * 9]
    running = start(*arguments(endpoint, "-c", "1"), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 2)
    Path("o.jsonl").rename("o.jsonl.1")
    endpoint.released = True
    _, told = running.communicate(timeout=240)
    assert running.returncode == 5
    assert "moved, deleted or emptied" in told
    assert len(records(Path("o.jsonl.1").read_text())) < 40


def test_x3_an_emptied_output_ends_the_run(photos: Photos, endpoint: Endpoint) -> None:
    """If the output is emptied, as by copytruncate of logrotate, the run exits with 5; the next completes."""
    photos(40)
    endpoint.delay, endpoint.script = 0.2, ["ok", "ok", *["held"] * 9]
    running = start(*arguments(endpoint, "-c", "1"), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 3 and Path("o.jsonl").stat().st_size > 0)
    os.truncate("o.jsonl", 0)
    endpoint.released = True
    _, told = running.communicate(timeout=240)
    assert running.returncode == 5
    assert "moved, deleted or emptied" in told
    endpoint.delay = 0
    finish(endpoint.url)
    each_once(40)


@pytest.mark.parametrize("how", ["moved there", "copied there"])
def test_x3_a_run_without_a_record_removes_no_foreign_file(
    photos: Photos, endpoint: Endpoint, how: str
) -> None:
    """A run without an answer does not remove a file that another program put in place of its output."""
    photos(1)
    endpoint.script = ["held"]
    running = start(*arguments(endpoint, "--drain", "0"), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: bool(endpoint.questions))
    assert Path("o.jsonl").stat().st_size == 0
    if how == "moved there":
        Path("backup").write_text("precious")
        Path("backup").rename("o.jsonl")
    else:
        Path("o.jsonl").write_text("precious")
    running.terminate()
    assert running.wait(timeout=240) == 143
    assert Path("o.jsonl").read_text() == "precious"


@pytest.mark.slow
@pytest.mark.parametrize("kills", mostly_long([3, 8], [3]))
def test_x5_kills_lose_and_repeat_no_record(photos: Photos, endpoint: Endpoint, kills: int) -> None:
    """After SIGKILL at random moments and a last run, every image has exactly one whole record.

    The settings of the run are next to its records after each kill.
    """
    photos(100)
    endpoint.delay = 0.01
    moments = random.Random(7)
    for _ in range(kills):
        asked = len(endpoint.questions) + moments.randrange(1, 8)
        running = start(*arguments(endpoint), stderr=subprocess.DEVNULL)
        endpoint.until(lambda asked=asked: len(endpoint.questions) >= asked)  # type: ignore[misc]
        running.kill()
        running.wait()
        if Path("o.jsonl").stat().st_size:
            assert len(records(Path("o.jsonl.runs").read_text())) == 1
        if moments.random() < 0.3:  # as a power cut leaves it
            with Path("o.jsonl").open("ab") as output:
                output.write(b'{"v":1,"id":"photos/p0')
    finish(endpoint.url)
    counted = Counter(record["id"] for record in records(Path("o.jsonl").read_text()))
    assert counted == {f"photos/p{n:04}.jpg": 1 for n in range(100)}


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_x4_two_names_of_one_output_are_one(
    photos: Photos, endpoint: Endpoint, link: Callable[[Path, str], None]
) -> None:
    """A run whose output is another name of a file in use exits with 75."""
    photos(3)
    endpoint.script = ["held"]
    first = start(*arguments(endpoint), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: bool(endpoint.questions))
    link(Path("link.jsonl"), "o.jsonl")
    second = run(*arguments(endpoint)[:-1], "link.jsonl")
    assert second.returncode == 75
    endpoint.released = True
    assert first.wait(timeout=240) == 0


def test_x4_a_second_run_on_the_same_output_exits_75(photos: Photos, endpoint: Endpoint) -> None:
    """A second run on an output in use ends with 75, and the first run completes."""
    photos(3)
    endpoint.script = ["held"]
    first = start(*arguments(endpoint), stderr=subprocess.DEVNULL)
    endpoint.until(lambda: bool(endpoint.questions))
    second = run(*arguments(endpoint))
    assert second.returncode == 75
    assert "o.jsonl" in second.stderr
    endpoint.released = True
    assert first.wait(timeout=240) == 0
    assert len(records(Path("o.jsonl").read_text())) == 3


def test_x3_a_limit_on_file_size_exits_5_with_whole_lines(photos: Photos, endpoint: Endpoint) -> None:
    """A limit on the file size is exit code 5 with whole lines, and the next run does the rest."""
    photos(20)
    limited = subprocess.run(
        [
            "prlimit",
            "--fsize=4000",
            "bash",
            "-c",
            "trap '' XFSZ; exec \"$@\"",
            "-",
            *COMMAND,
            *arguments(endpoint),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert limited.returncode == 5, limited.stderr
    assert "o.jsonl" in limited.stderr
    kept = records(Path("o.jsonl").read_text())
    assert 0 < len(kept) < 20
    finish(endpoint.url)
    assert Counter(r["id"] for r in records(Path("o.jsonl").read_text())).most_common(1)[0][1] == 1
    assert len(Path("o.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize("more", [(), ("--limit", "1")])
def test_x3_a_full_device_exits_5(photos: Photos, endpoint: Endpoint, more: tuple[str, ...]) -> None:
    """Standard output on a full device is exit code 5 with its reason."""
    photos(2)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "run", "photos", "-b", "ollama", "--base-url", endpoint.url, *more],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=240,
            check=False,
        )
    assert done.returncode == 5
    assert b"the disk is full" in done.stderr
    assert b"Traceback" not in done.stderr


def test_x7_a_closed_pipe_ends_quietly(photos: Photos, endpoint: Endpoint) -> None:
    """With `| head -3` the three lines are printed, and the command exits with 0 and no message."""
    photos(60)
    asking = f"{' '.join(COMMAND)} run photos -q -b ollama --base-url {endpoint.url}"
    command = f"{asking} | head -3; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(), timeout=240, check=False
    )
    lines = done.stdout.splitlines()
    assert len(records(lines[:3])) == 3
    assert lines[3] == "0"
    assert done.stderr == ""


def test_x6_closed_standard_streams_do_not_spoil_the_output(photos: Photos, endpoint: Endpoint) -> None:
    """With standard output and error closed, the output file holds records and nothing else."""
    photos(3)
    command = f"{' '.join(COMMAND)} run photos -b ollama --base-url {endpoint.url} -o o.jsonl >&- 2>&- <&-"
    done = subprocess.run(["bash", "-c", command], env=environment(), timeout=240, check=False)
    assert done.returncode == 0
    assert len(records(Path("o.jsonl").read_text())) == 3


def test_x6_closed_standard_output_is_an_error(photos: Photos, endpoint: Endpoint) -> None:
    """Records for a closed standard output are exit code 5, not success."""
    photos(1)
    command = f"{' '.join(COMMAND)} run photos -b ollama --base-url {endpoint.url} >&-"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), stderr=subprocess.PIPE, timeout=240, check=False
    )
    assert done.returncode == 5
    assert b"Traceback" not in done.stderr


def test_x7_a_closed_reader_of_standard_error_changes_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """If the reader of standard error is gone, all records are written and the exit code is the same."""
    folder = photos(3)
    asking = f"{' '.join(COMMAND)} run photos -b ollama -o o.jsonl --base-url"
    for url, code in ((endpoint.url, 0), (CLOSED + " --give-up-after 0.1", 4)):
        (folder / "more.jpg").write_bytes((folder / "p0000.jpg").read_bytes())
        done = subprocess.run(
            ["bash", "-c", f"({asking} {url}; echo $? > code) 2>&1 | true; while ! [ -s code ]; do :; done"],
            env=environment(),
            timeout=240,
            check=False,
        )
        assert done.returncode == 0
        assert Path("code").read_text() == f"{code}\n"
        Path("code").unlink()
    assert len(records(Path("o.jsonl").read_text())) == 4
