"""FILE.lock is removed after a run without a record, and two runs never hold the lock of one output."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from file_runs import asking
from written_results import RUN, answered, start_python, write

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import LockedError, OutputError
from vlmbatch.writers import JsonlWriter
from vlmbatch.writers.lock import OutputLock

Photos = Callable[..., Path]
Lock = Callable[[int, int], None]

CLOSED = "http://127.0.0.1:9"
ROUNDS = """
import os, sys
from vlmbatch.errors import LockedError
from vlmbatch.writers.lock import OutputLock

output, marker = sys.argv[1:]
held = 0
sys.stdin.readline()
for _ in range(1500):
    lock = OutputLock(output)
    try:
        lock.acquire()
    except LockedError:
        continue
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails if the other process holds the lock, too
    os.unlink(marker)
    held += 1
    if held % 2:  # also a file that the other process has made, but not locked in time
        os.unlink(lock.path)
    lock.release()
print(held)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder / "out.jsonl"


def left(output: Path) -> list[str]:
    """The names of all files next to the output, and of the output."""
    return sorted(path.name for path in output.parent.iterdir())


def lock_of(output: Path) -> Path:
    return Path(f"{output}.lock")


async def test_a_run_without_a_record_leaves_no_file(output: Path) -> None:
    """A run that opens the output and writes no record removes the output and the lock file."""
    await write(output, [])
    assert left(output) == []


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.lock"])
async def test_an_empty_file_of_an_earlier_time_stays(output: Path, name: str) -> None:
    """A run without a record removes only the files that it has made."""
    (output.parent / name).touch()
    await write(output, [])
    assert left(output) == [name]


async def test_the_lock_file_of_records_stays(output: Path) -> None:
    """The lock file next to an output with records stays, also after a run that finds nothing to do."""
    await write(output, [answered("a")])
    usual = ["out.jsonl", "out.jsonl.lock", "out.jsonl.runs"]
    assert left(output) == usual
    lock_of(output).unlink()
    await write(output, [])
    assert left(output) == usual


async def test_a_full_disk_leaves_no_settings_without_records(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first record cannot be written, FILE.runs is removed together with the empty output."""

    async def full(_file: object, _lines: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("vlmbatch.writers.jsonl.append", full)
    with pytest.raises(OutputError, match="the disk is full"):
        await write(output, [answered("a")])
    assert left(output) == []


async def test_a_run_that_was_refused_removes_nothing(output: Path) -> None:
    """A second run, which does not get the lock, leaves the lock file of the first run where it is."""
    async with JsonlWriter(str(output), OutputOptions()) as first:
        with pytest.raises(LockedError):
            await write(output, [])
        assert left(output) == ["out.jsonl.lock"]
        await first.begin(RUN, {})
    assert left(output) == []


def test_a_lock_file_that_replaced_ours_stays(output: Path) -> None:
    """A lock file that the user or another run has put in the place of ours is not removed."""
    lock = OutputLock(str(output))
    lock.acquire()
    lock_of(output).unlink()
    lock_of(output).touch()
    lock.release()
    assert left(output) == ["out.jsonl.lock"]


@pytest.mark.parametrize("keeper", [False, True])
def test_a_run_that_opened_a_removed_lock_file_opens_again(
    output: Path, monkeypatch: pytest.MonkeyPatch, keeper: bool
) -> None:
    """If the first run removes the lock file between open and lock of the second, there is still one lock.

    With `keeper`, a third process has the removed file locked; the new file is free all the same.
    """
    first, second, third = (OutputLock(str(output)) for _ in range(3))
    first.acquire()
    flock: Lock = fcntl.flock
    removed = os.open(lock_of(output), os.O_RDONLY)

    def after_the_end_of_the_first_run(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        first.release()
        if keeper:
            flock(removed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_end_of_the_first_run)
    second.acquire()
    assert json.loads(lock_of(output).read_bytes())["pid"] == os.getpid()
    with pytest.raises(LockedError):
        third.acquire()
    second.release()
    os.close(removed)
    assert left(output) == []


def test_a_run_that_made_no_lock_file_in_time_uses_that_of_the_other(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another run makes the lock file between two calls of this run, this run locks that file."""
    opened = os.open

    def slow(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_EXCL:
            monkeypatch.setattr(os, "open", opened)
            lock_of(output).touch()
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", slow)
    lock = OutputLock(str(output))
    lock.acquire()
    lock.release()
    assert left(output) == ["out.jsonl.lock"]


def test_two_processes_never_hold_the_lock_together(output: Path, tmp_path: Path) -> None:
    """Two processes take the lock and remove its file many times, and one at a time holds it."""
    pair = [start_python(ROUNDS, output, tmp_path / "marker") for _ in range(2)]
    for each in pair:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = [each.communicate()[0] for each in pair]
    assert [each.returncode for each in pair] == [0, 0]
    assert all(int(held) > 0 for held in told)


def test_a_command_without_images_or_endpoint_leaves_no_file(photos: Photos, endpoint: Endpoint) -> None:
    """A command that ends before its first record leaves its folder as it was."""
    Path("empty").mkdir()
    photos(1)
    before = sorted(path.name for path in Path.cwd().iterdir())
    assert run(*asking(endpoint, paths="empty")).returncode == 2
    away = run("run", "photos", "-b", "ollama", "--base-url", CLOSED, "-o", "o.jsonl", "--give-up-after", "0")
    assert away.returncode == 4, away.stderr
    assert sorted(path.name for path in Path.cwd().iterdir()) == before
