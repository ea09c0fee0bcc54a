"""This machine: its processors, memory and threads for preparation, and which users can change a file."""

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vlmbatch import system


def usable_cpus() -> int:
    """The number of processors that this process may use (taskset, Slurm, cpusets); at least 1.

    Only Linux reports the limit of a process; elsewhere it is all processors.
    """
    return system.cpus_of_process() or os.cpu_count() or 1


UNKNOWN_MEMORY = 8 << 30
"""Bytes that are assumed if a system does not tell its memory."""
CGROUP_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""The files with the limit of a control group in bytes: the first two in version 2, the last in version 1."""


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the least of the machine, its control groups and its own limits.

    Of its own limits (ulimit -v, -d), the unused rest counts. `root` is the root of the file system, for
    tests.
    """
    limits = [system.memory() or UNKNOWN_MEMORY, *_cgroup_limits(root)]
    for limit, taken in zip(system.memory_limits(), _mapped(), strict=True):
        if limit is not None:
            limits.append(max(limit - taken, 1))
    return min(limits)


def _mapped() -> tuple[int, int]:
    """Bytes that this process has mapped already: all of them, and those of its data; 0 if unknown."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:  # not Linux, the only system that enforces these limits
        return 0, 0
    page = mmap.PAGESIZE
    return page * int(pages[0]), page * int(pages[5])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The readable limits of the control groups of this process and of their parents."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux, or no /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        here = top / path.lstrip("/")
        for group in (here, *here.parents):
            for name in CGROUP_FILES:
                with suppress(OSError, ValueError):  # missing, or "max" for no limit
                    yield int((group / name).read_text())
            if group == top:
                break


def preparers() -> int:
    """The number of threads that prepare pictures; at least this many are prepared ahead of the requests."""
    return max(2, usable_cpus())


def is_foreign(found: os.stat_result) -> bool:
    """Whether this file or folder belongs to another user than this one or root."""
    return found.st_uid not in (system.user_id(), 0)


def others_can_write(found: os.stat_result) -> bool:
    """Whether other users can write to this file or folder.

    A group with the number of the owner has the owner alone. On Windows this is unknown, and False.
    """
    if not system.HAS_OWNERS:
        return False
    writers = stat.S_IWOTH if found.st_gid == found.st_uid else stat.S_IWOTH | stat.S_IWGRP
    return bool(found.st_mode & writers)
