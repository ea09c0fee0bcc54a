"""The command on a system without what only POSIX has; a stand-in for Windows (stand_in.py)."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import breaking, records, run, start
from endpoint import Endpoint
from schema_pairs import SLOW
from stand_in import WINDOWS

from vlmbatch import system
from vlmbatch.errors import LockedError
from vlmbatch.machine import UNKNOWN_MEMORY, is_foreign, memory_limit, others_can_write, usable_cpus
from vlmbatch.prompts import answer_checker, checking
from vlmbatch.sources.globs import normalise
from vlmbatch.writers.lock import OutputLock

Photos = Callable[..., Path]

SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@pytest.fixture
def windows(tmp_path: Path) -> dict[str, str]:
    """The variables for a command on the stand-in for Windows."""
    return breaking(tmp_path / "windows", WINDOWS)


def arguments(endpoint: Endpoint, *more: str) -> tuple[str, ...]:
    return ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *more)


@pytest.mark.parametrize("words", [["--version"], ["run", "--help"], ["models"], ["doctor"]])
def test_the_commands_work(
    photos: Photos, endpoint: Endpoint, windows: dict[str, str], words: list[str]
) -> None:
    """All commands work on it, also with the letters of a Western European console."""
    photos(0)
    server = (
        ["-b", "ollama", "--base-url", endpoint.url] if len(words) == 1 and words != ["--version"] else []
    )
    done = run(*words, *server, PYTHONIOENCODING="cp1252", **windows)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout


def test_a_run_is_resumed(photos: Photos, endpoint: Endpoint, windows: dict[str, str]) -> None:
    """Files, folders, linked files, a schema, a summary, a cache and resume work on it."""
    folder = photos(2)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "p0000.jpg").rename(folder / "deep" / "er" / "p0000.jpg")
    (folder / "p.jpg").symlink_to("p0001.jpg")
    (folder / "loop").symlink_to(".")
    endpoint.answer = lambda _request: '{"n": 7}'
    more = ("--schema", SCHEMA, "--summary", "s.json", "--cache", "answers", "--exclude", "p0001.jpg")
    first = run(*arguments(endpoint, *more), **windows)
    assert first.returncode == 0, first.stderr
    done = run(*arguments(endpoint, *more[:-2]), **windows)
    assert done.returncode == 0, done.stderr
    found = records(Path("o.jsonl").read_text())
    assert sorted(record["id"] for record in found) == [
        *("photos/deep/er/p0000.jpg", "photos/p.jpg", "photos/p0001.jpg")
    ]
    assert all(record["data"] == {"n": 7} for record in found)
    assert json.loads(Path("s.json").read_text())["exit_code"] == 0
    assert "Traceback" not in first.stderr + done.stderr


def test_the_first_signal_ends_a_run_in_order(
    photos: Photos, endpoint: Endpoint, windows: dict[str, str]
) -> None:
    """After Ctrl-C the answers in flight are written, and the exit code is 130; another run got 75 before."""
    photos(30)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 5 else "held"
    running = start(*arguments(endpoint), variables=windows, stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) > 5)
    assert run(*arguments(endpoint), **windows).returncode == 75
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    while "stopping" not in running.stderr.readline():
        pass
    endpoint.released = True
    _, told = running.communicate(timeout=240)
    assert running.returncode == 130
    assert "Traceback" not in told
    found = records(Path("o.jsonl").read_text())
    assert len(found) == len({r["id"] for r in found}) == len(endpoint.questions) < 30


def test_a_signal_ends_other_commands(photos: Photos, endpoint: Endpoint, windows: dict[str, str]) -> None:
    """Ctrl-C ends a command that waits for a server, with exit code 130."""
    photos(0)
    endpoint.routes = {"/api/tags": "hang", "/api/show": "hang", "/api/version": "hang"}
    args = ("models", "-b", "ollama", "--base-url", endpoint.url)
    running = start(*args, variables=windows, stderr=subprocess.PIPE)
    endpoint.until(lambda: bool(endpoint.requests))
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 130
    assert "Traceback" not in told


def test_a_check_ends_without_a_timer_of_the_processor() -> None:
    """Where the processor's time cannot be limited, the clock ends a check that takes long, with code 1."""
    script = f"""
import importlib.util, signal, sys
sys.modules["resource"] = None
del signal.setitimer, signal.ITIMER_PROF, signal.SIGPROF
spec = importlib.util.spec_from_file_location("answer_checker", {answer_checker.__file__!r})
checker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checker)
checker.CLOCK_S = 0.2
checker.main()
"""
    schema, answer = SLOW[next(iter(SLOW))]
    quick, slow = (
        json.dumps({"schema": json.dumps(schema), "answers": [answer]})
        for schema, answer in (({}, 1), (schema, json.loads(answer)))
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=f"{quick}\n{slow}\n".encode(), capture_output=True, check=False
    )
    assert done.stdout == b"[true]\n[null]\n"
    assert done.returncode == 1


def test_a_process_without_polls_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no pipe can be waited for, a check is answered, and a process that hangs is killed in time."""
    monkeypatch.setattr(system, "CAN_WAIT_FOR_PIPES", False)
    checker = checking.Checker()
    assert checker.check('{"type": "object"}', [1, {}]) == ['$: 1 is not of type "object"', None]
    assert checker._process is not None
    os.kill(checker._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(checking, "PATIENCE_S", 0.1)
    with pytest.raises(checking.CheckFailedError, match="too long"):
        checker.check("{}", ["a" * 200_000])  # more than the pipe takes
    monkeypatch.undo()
    checker.close()


class Msvcrt:
    """Windows' module with its locks: of bytes from the current position on, also beyond the end."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        self.locked = dict[tuple[int, int], int]()

    def locking(self, fd: int, mode: int, number: int) -> None:
        assert number == 1
        place = os.fstat(fd).st_ino, os.lseek(fd, 0, os.SEEK_CUR)
        if mode == self.LK_UNLCK:
            if self.locked.get(place) != fd:
                raise OSError(errno.EACCES, "Permission denied")
            del self.locked[place]
        elif self.locked.setdefault(place, fd) != fd:
            raise OSError(errno.EACCES, "Permission denied")


def test_the_locks_of_windows_keep_two_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte far beyond the lock file is locked, so that its content can be read, and not the output."""
    msvcrt = Msvcrt()
    monkeypatch.setattr(system, "_fcntl", None)
    monkeypatch.setattr(system, "_msvcrt", msvcrt)
    monkeypatch.setattr(system, "LOCKED_IS_READABLE", False)
    output = tmp_path / "o.jsonl"
    output.touch()
    first, second = OutputLock(str(output)), OutputLock(str(output))
    first.acquire()
    with output.open("ab") as file:
        first.hold(file.fileno())
    ((_, byte),) = msvcrt.locked
    assert byte > Path(f"{output}.lock").stat().st_size
    with pytest.raises(LockedError, match=f"process {os.getpid()}, started .* is writing"):
        second.acquire()
    first.release()
    assert not msvcrt.locked
    second.acquire()
    second.release()


def test_unknown_facts_of_a_machine_have_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without sysconf, affinity, limits and owners: all processors, 8 GiB, no file that others can change."""
    for name in ("sysconf", "sched_getaffinity", "geteuid"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(system, "_resource", None)
    monkeypatch.setattr(system, "HAS_OWNERS", False)
    assert memory_limit(tmp_path) == UNKNOWN_MEMORY
    assert usable_cpus() == os.cpu_count()
    assert system.most_files() > 1_000_000
    found = os.stat_result((0o100666, 1, 1, 1, 0, 0, 0, 0, 0, 0))  # as Windows describes any file
    assert not is_foreign(found)
    assert not others_can_write(found)


def test_bytes_are_read_at_their_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without pread, bytes are read by seeking."""
    monkeypatch.delattr(os, "pread")
    place = tmp_path / "digits"
    place.write_bytes(b"0123456789")
    with place.open("rb") as file:
        assert system.read_at(file.fileno(), 3, 4) == b"456"
        assert system.read_at(file.fileno(), 9, 8) == b"89"


def test_ids_have_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an image has slashes on Windows, too; a backslash is a letter of a name elsewhere."""
    assert normalise("photos\\a.jpg") == "photos\\a.jpg"
    monkeypatch.setattr("os.sep", "\\")
    assert normalise("C:\\photos\\.\\a.jpg") == "C:/photos/a.jpg"
    assert normalise("photos/a.jpg") == "photos/a.jpg"


def test_a_junction_is_a_link() -> None:
    """What os.lstat tells of a junction says that it is a link; of a file in the cloud, that it is none."""
    junction, in_the_cloud = (
        SimpleNamespace(st_mode=0o40777, st_reparse_tag=tag) for tag in (0xA0000003, 0x9000001A)
    )
    assert system.is_link(junction)  # type: ignore[arg-type]
    assert not system.is_link(in_the_cloud)  # type: ignore[arg-type]


def test_no_process_is_asked_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """os.kill ends a process there, also with the signal 0: so nothing is asked, and nothing is known."""
    asked: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: asked.append(pid))
    monkeypatch.setattr(system, "_msvcrt", object())
    assert system.is_running(os.getpid()) is None
    assert asked == []
