"""FILE.lock.held: the lock of an output on a disk that cannot lock files."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import breaking, records, run, start
from endpoint import Endpoint
from planted import NO_FILES
from written_results import answered, write

from vlmbatch.errors import ConfigError, LockedError, OutputError
from vlmbatch.writers.holder import Holder
from vlmbatch.writers.lock import OutputLock
from vlmbatch.writers.soft_lock import HeldError, SoftLock

Photos = Callable[..., Path]

STARTED = "2026-11-22T10:00:00Z"
NO_LOCKS = ("ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOLCK", "EINVAL")
EARLIER_BOOT = {"boot": "an earlier one", "namespace": "pid:[4026531836]"}
WITHOUT_LOCKS = """
import errno, fcntl
def flock(fd, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.fixture
def flock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets flock fail with the error of this name."""

    def fail(name: str) -> None:
        number = getattr(errno, name)

        def failing(_fd: int, _operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", failing)

    return fail


@pytest.fixture
def output(tmp_path: Path, flock: Callable[[str], None]) -> Path:
    """An output on a disk without locks."""
    flock("ENOSYS")
    return tmp_path / "out.jsonl"


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def held(output: Path) -> Path:
    return Path(f"{output}.lock.held")


def plant(output: Path, **changes: Any) -> Holder:
    """Leave the lock of a run of this process, with these changes."""
    holder = replace(Holder.of_this_process(STARTED), **changes)
    held(output).write_bytes(holder.to_bytes())
    return holder


def refusal(output: Path) -> LockedError:
    """The error of a run on this output, which leaves the lock of the other run unchanged."""
    before = held(output).read_bytes()
    with pytest.raises(LockedError) as caught:
        OutputLock(str(output)).acquire()
    assert held(output).read_bytes() == before
    return caught.value


def left(output: Path) -> list[str]:
    """The names of the files next to the output, without those of each run."""
    usual = {output.name, f"{output.name}.lock", f"{output.name}.runs"}
    return sorted(path.name for path in output.parent.iterdir() if path.name not in usual)


@pytest.mark.parametrize("name", NO_LOCKS)
async def test_a_disk_without_locks_gets_a_file(
    tmp_path: Path, flock: Callable[[str], None], name: str
) -> None:
    """Whatever flock says instead of "not supported": one run at a time writes, and its file is removed."""
    output = tmp_path / "out.jsonl"
    flock(name)
    first = OutputLock(str(output))
    first.acquire()
    assert [notice for notice in first.notices if "out.jsonl.lock.held" in notice] == list(first.notices)
    error = refusal(output)
    assert error.is_certain
    assert f"another run (process {os.getpid()} on " in str(error)
    assert "rm " not in str(error)
    first.release()
    assert left(output) == []
    await write(output, [answered("a")])
    assert [record["id"] for record in records(output.read_text())] == ["a"]
    assert left(output) == []


def test_other_failures_of_flock_end_the_run(tmp_path: Path, flock: Callable[[str], None]) -> None:
    """A disk that fails is not a disk without locks."""
    flock("EIO")
    with pytest.raises(OutputError, match="cannot lock"):
        OutputLock(str(tmp_path / "out.jsonl")).acquire()


def test_with_locks_there_is_no_such_file(tmp_path: Path) -> None:
    """Where flock works, there is no notice and no further file."""
    lock = OutputLock(str(tmp_path / "out.jsonl"))
    lock.acquire()
    assert lock.notices == ()
    assert left(tmp_path / "out.jsonl") == []
    lock.release()


def test_a_run_with_locks_respects_one_without(
    tmp_path: Path, flock: Callable[[str], None], gone: int
) -> None:
    """If the lock service of NFS was down at the start of a run, a later run that can lock is refused too.

    A file of an ended run does not matter to it.
    """
    output, works = tmp_path / "out.jsonl", fcntl.flock
    flock("ENOLCK")
    first = OutputLock(str(output))
    first.acquire()
    fcntl.flock = works  # monkeypatch puts back the same
    assert refusal(output).is_certain
    first.release()
    plant(output, pid=gone)
    lock = OutputLock(str(output))
    lock.acquire()
    assert lock.notices == ()
    lock.release()


@pytest.mark.parametrize("changes", [EARLIER_BOOT, {"born": "1"}, {"pid": -1}])
def test_the_lock_of_an_ended_run_is_taken_over(output: Path, gone: int, changes: dict[str, Any]) -> None:
    """A run has ended with its process, before a later one with the same number, or before the last boot."""
    pid = gone if "pid" in changes else os.getpid()
    if not plant(output, **changes | {"pid": pid}).machine and "boot" in changes:
        pytest.skip("nothing tells this machine from another one of its name")
    lock = OutputLock(str(output))
    lock.acquire()
    assert f"(process {pid} on this machine, started {STARTED}) was taken over" in lock.notices[1]
    assert refusal(output).is_certain
    lock.release()
    assert left(output) == []


def test_a_run_of_another_user_keeps_its_lock(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that this user may not even ask about is at work."""

    def refused(_pid: int, _number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    plant(output)
    monkeypatch.setattr(os, "kill", refused)
    assert refusal(output).is_certain


@pytest.mark.parametrize(
    ("untold", "changes"), [("/etc/machine-id", {"machine": "", **EARLIER_BOOT}), ("/proc/self", {})]
)
def test_what_a_system_does_not_tell_is_unknown(
    output: Path, monkeypatch: pytest.MonkeyPatch, untold: str, changes: dict[str, str]
) -> None:
    """Without the number of the machine, or the start of a process, the user must say whether a run ended."""
    plant(output, **changes)

    def hidden(call: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def answer(self: Path) -> Any:
            if str(self) == untold:
                raise FileNotFoundError(untold)
            return call(self)

        return answer

    for name in ("read_text", "readlink"):
        monkeypatch.setattr(Path, name, hidden(getattr(Path, name)))
    assert not refusal(output).is_certain


def test_a_process_without_a_waiting_parent_has_ended(output: Path) -> None:
    """A killed run in a container whose first process does not collect its children holds no lock."""
    child = subprocess.Popen(["sleep", "100"])
    born = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    plant(output, pid=child.pid, born=born)
    assert refusal(output).is_certain
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    OutputLock(str(output)).acquire()
    child.wait()


@pytest.mark.parametrize("field", ["host", "machine", "namespace", "boot"])
def test_the_lock_of_another_machine_is_left(output: Path, gone: int, field: str) -> None:
    """Whether a run of another machine or container has ended is unknown; the message says what to type."""
    container = {"namespace": "pid:[1]"} if field == "boot" else {}
    plant(output, pid=gone, **container | {field: "elsewhere"})
    error = refusal(output)
    assert not error.is_certain
    host = "elsewhere" if field == "host" else Holder.of_this_process(STARTED).host
    assert f"another run (process {gone} on {host}, started {STARTED}) is writing" in str(error)
    assert str(error).endswith(f"If you are sure that the other run has ended, type: rm {held(output)}")
    held(output).unlink()
    OutputLock(str(output)).acquire()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"{}", b"\0" * 300, b'{"pid": 1}', b"9" * 5000, b"[" * 8000),
        Holder.of_this_process(STARTED).to_bytes()[:-9],
        *(
            replace(Holder.of_this_process(STARTED), **{name: value}).to_bytes()
            for name, value in (
                *(("pid", 0), ("pid", -1), ("pid", 1 << 40)),
                *(("token", "/../../x"), ("host", "\x1b[2J"), ("started", "now")),
            )
        ),
    ],
)
def test_a_lock_that_cannot_be_read_is_left(output: Path, content: bytes) -> None:
    """A file that is torn, or that another program has written, counts as held; nothing of it is shown."""
    held(output).write_bytes(content)
    error = refusal(output)
    assert not error.is_certain
    assert str(error).startswith(f"another run is writing to {output}; wait")
    assert f"rm {held(output)}" in str(error)


@pytest.mark.parametrize("make", NO_FILES)
def test_no_link_is_followed(output: Path, make: Callable[[Path], None]) -> None:
    """Anything but a plain file of that name is refused, and stays."""
    make(held(output))
    before = os.lstat(held(output))
    with pytest.raises(ConfigError, match="left unchanged"):
        OutputLock(str(output)).acquire()
    assert os.lstat(held(output)).st_ino == before.st_ino


def test_a_takeover_that_was_killed_is_taken_over(output: Path, gone: int) -> None:
    """A run that was killed between its two steps leaves two files, and the next run gets the lock."""
    first = plant(output, pid=gone)
    second = replace(first, token="b" * 32)
    Path(f"{held(output)}.{first.token}").write_bytes(second.to_bytes())
    lock = OutputLock(str(output))
    lock.acquire()
    assert left(output) == ["out.jsonl.lock.held"]
    assert refusal(output).is_certain
    lock.release()
    assert left(output) == []


def test_a_takeover_in_progress_holds_the_lock(output: Path, gone: int) -> None:
    """A living run that has made its file, but has not yet replaced the first one, has the lock."""
    first = plant(output, pid=gone)
    living = replace(Holder.of_this_process(STARTED), token="b" * 32)
    Path(f"{held(output)}.{first.token}").write_bytes(living.to_bytes())
    assert refusal(output).is_certain


def test_endless_takeovers_end(output: Path, gone: int) -> None:
    """Files that lead to each other in a circle end in a refusal."""
    first = plant(output, pid=gone)
    Path(f"{held(output)}.{first.token}").write_bytes(first.to_bytes())
    assert not refusal(output).is_certain


@pytest.mark.parametrize("ends", [True, False])
def test_a_faster_run_is_noticed(
    output: Path, gone: int, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """If another run takes over after this one has looked at the file, this one does not have the lock.

    If that run has also ended by then, this one starts again, and has it.
    """
    plant(output, pid=gone)
    mine, rival = (SoftLock(str(held(output)), STARTED) for _ in range(2))
    create = SoftLock._create

    def after_the_rival(self: SoftLock, place: str) -> None:
        monkeypatch.setattr(SoftLock, "_create", create)
        assert rival.acquire() is not None
        if ends:
            rival.release()
        create(self, place)

    monkeypatch.setattr(SoftLock, "_create", after_the_rival)
    if ends:
        assert mine.acquire() is None
        mine.release()
    else:
        with pytest.raises(HeldError):
            mine.acquire()
        rival.release()
    assert left(output) == []


@pytest.mark.parametrize("make", NO_FILES)
def test_the_end_of_a_run_leaves_what_has_replaced_its_lock(
    output: Path, make: Callable[[Path], None]
) -> None:
    """A link, a folder or a second name in the place of the lock is left, and the run ends well."""
    lock = OutputLock(str(output))
    lock.acquire()
    held(output).unlink()
    make(held(output))
    lock.release()
    assert os.path.lexists(held(output))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_no_torn_lock(output: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """If the file takes only a part of the lock, or NFS refuses it at the end, the file is removed."""

    def full(fd: int, data: bytes = b"") -> int:
        if call == "fsync":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_part(fd, data[:9])

    write_part = os.write
    soft = SoftLock(str(held(output)), STARTED)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        soft.acquire()
    assert left(output) == []


@pytest.mark.parametrize("name", ["", "two words", "caf\u00e9", "\udcff", "a\x1b[2Jb", "h" * 300])
def test_each_name_of_a_machine_will_do(output: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The kernel lets a machine have any bytes as its name; its runs still know and remove their locks."""
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    lock = OutputLock(str(output))
    lock.acquire()
    assert refusal(output).is_certain
    lock.release()
    assert left(output) == []


@pytest.fixture
def hectic() -> Iterator[None]:
    """Let threads take turns as often as possible."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hectic")
def test_one_of_many_runs_takes_over(output: Path, gone: int) -> None:
    """Of eight runs that find the lock of a dead run at the same time, one gets it, in each of 30 rounds."""
    for _ in range(30):
        plant(output, pid=gone)
        together = threading.Barrier(8)
        winners: list[SoftLock] = []

        def race(together: threading.Barrier = together, winners: list[SoftLock] = winners) -> None:
            lock = SoftLock(str(held(output)), STARTED)
            together.wait()
            try:
                lock.acquire()
            except HeldError:
                return
            winners.append(lock)

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        winners[0].release()
        assert left(output) == []


def test_a_lock_of_another_run_is_not_removed(output: Path) -> None:
    """If the user has removed the file, and another run has made one, the end of the first run leaves it."""
    lock = OutputLock(str(output))
    lock.acquire()
    plant(output)
    lock.release()
    assert held(output).exists()


def test_the_command_goes_on_after_a_kill(photos: Photos, endpoint: Endpoint) -> None:
    """Without locks a second run ends with 75; after SIGKILL the next one takes over, tells it, finishes."""
    photos(12)
    broken = breaking(Path("broken"), WITHOUT_LOCKS)
    args = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 3 else "held"
    running = start(*args, variables=broken, stderr=subprocess.DEVNULL)
    endpoint.until(lambda: len(endpoint.questions) > 3 and bool(Path("o.jsonl").read_bytes()))
    second = run(*args, **broken)
    assert second.returncode == 75
    assert f"another run (process {running.pid} on " in second.stderr
    assert run(*args, "-q", **broken).stderr == ""
    running.kill()
    running.wait()
    assert Path("o.jsonl.lock.held").exists()
    endpoint.released = True
    third = run(*args, **broken)
    assert third.returncode == 0, third.stderr
    assert third.stderr.count("files cannot be locked on this disk (flock)") == 1
    assert third.stderr.count(f"a run that has ended (process {running.pid} on this machine") == 1
    found = records(Path("o.jsonl").read_text())
    assert len(found) == len({record["id"] for record in found}) == 12
    assert not list(Path().glob("*.held*"))


def test_a_quiet_run_tells_how_to_free_a_lock(photos: Photos, endpoint: Endpoint) -> None:
    """With -q, 75 is silent only if the other run is at work; cron would else never show the message."""
    photos(1)
    plant(Path("o.jsonl"), host="elsewhere")
    broken = breaking(Path("broken"), WITHOUT_LOCKS)
    done = run("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", **broken)
    assert done.returncode == 75
    assert "on elsewhere, started" in done.stderr
    assert f"type: rm {Path('o.jsonl.lock.held').absolute()}\n" in done.stderr
    assert not endpoint.questions
