"""Outputs on a disk whose locks keep other descriptors from reading: an SMB share on Linux (flock(2))."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from command import breaking, records, run
from endpoint import Endpoint
from file_runs import asking

Photos = Callable[..., Path]

SMB = """
import builtins, fcntl, os
lock, opened, pread, close, own = fcntl.flock, builtins.open, os.pread, os.close, set()

def flock(fd, operation):
    try:
        lock(fd, operation)
    except BlockingIOError:
        raise PermissionError(13, "Permission denied")
    own.add(fd)

def check(fd):
    if fd not in own:
        flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        flock(fd, fcntl.LOCK_UN)
        own.discard(fd)

def pread_unlocked(fd, size, start):
    check(fd)
    return pread(fd, size, start)

def open_unlocked(path, mode="r", *args, **kwargs):
    file = opened(path, mode, *args, **kwargs)
    if "r" in mode and str(path).endswith(".jsonl"):
        check(file.fileno())
    return file

def close_unlocked(fd):
    own.discard(fd)
    close(fd)

fcntl.flock, builtins.open, os.pread, os.close = flock, open_unlocked, pread_unlocked, close_unlocked
"""


def test_a_run_goes_on_where_locks_are_mandatory(photos: Photos, endpoint: Endpoint) -> None:
    """The output stays readable: the same command later reads its records back, and asks for the rest."""
    folder = photos(3)
    smb = breaking(Path("smb"), SMB)
    (folder / "p0000.jpg").rename("later.jpg")
    assert run(*asking(endpoint), **smb).returncode == 0
    Path("later.jpg").rename(folder / "later.jpg")
    again = run(*asking(endpoint), **smb)
    assert again.returncode == 0, again.stderr
    assert "1 answered, 2 done before" in again.stderr
    assert len(records(Path("o.jsonl").read_text())) == 3


def test_a_mandatory_lock_says_that_another_run_is_at_work(photos: Photos, endpoint: Endpoint) -> None:
    """A lock file that is locked, and so unreadable, ends the second run with 75, not with 5."""
    photos(1)
    with open("o.jsonl.lock", "wb") as file:
        file.write(b'{"pid": 1, "started": "2026-11-22T10:00:00Z"}')
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run(*asking(endpoint), **breaking(Path("smb"), SMB))
    assert done.returncode == 75, done.stderr
    assert "another run is writing to o.jsonl; wait until it has ended" in done.stderr
