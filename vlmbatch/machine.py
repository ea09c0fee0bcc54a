"""This machine: its processors, memory and threads for preparation, and which users can change a file."""

import os
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_cpus() -> int:
    """The number of processors that this process may use (taskset, Slurm, cpusets); at least 1.

    Only Linux reports the limit of a process; elsewhere it is all processors.
    """
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


PAGE = os.sysconf("SC_PAGE_SIZE")
CGROUP_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""The files with the limit of a control group in bytes: the first two in version 2, the last in version 1."""


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the least of the machine, its control groups and its own limits.

    Of its own limits (ulimit -v, -d), the unused rest counts. `root` is the root of the file system, for
    tests.
    """
    limits = [PAGE * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits(root)]
    for kind, taken in zip((resource.RLIMIT_AS, resource.RLIMIT_DATA), _mapped(), strict=True):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(max(soft - taken, 1))
    return min(limits)


def _mapped() -> tuple[int, int]:
    """Bytes that this process has mapped already: all of them, and those of its data; 0 if unknown."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:  # not Linux, the only system that enforces these limits
        return 0, 0
    return PAGE * int(pages[0]), PAGE * int(pages[5])


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
    return found.st_uid not in (os.geteuid(), 0)


def others_can_write(found: os.stat_result) -> bool:
    """Whether other users can write to this file or folder.

    A group with the number of the owner has the owner alone.
    """
    writers = stat.S_IWOTH if found.st_gid == found.st_uid else stat.S_IWOTH | stat.S_IWGRP
    return bool(found.st_mode & writers)
