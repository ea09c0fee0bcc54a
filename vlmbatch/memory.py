"""How much memory decoding may take, in all threads together: by default a quarter of what there is."""

import mmap
import os
import resource
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from vlmbatch.errors import ImageError, ResourceError

MOST_BY_DEFAULT = 2 * 1024**3
SHARE = 0.25
SHARE_OF_ONE = 0.8
"""A picture that alone would take more than this share of all memory is refused: it would end the run."""

FILES_SHARE = 0.25
"""Files that are read beforehand have a budget of their own, so that who holds a file can wait for room."""

PAGE = os.sysconf("SC_PAGE_SIZE")
CGROUP_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Where a control group says its limit in bytes: the first two in version 2, the last in version 1."""


class Memory:
    """A budget in bytes that decoding threads take their share of, first come, first served."""

    def __init__(self, budget: int, machine: int) -> None:
        """`machine` is how much there is in all."""
        self.budget = budget
        self.machine = machine
        self._free = budget
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @classmethod
    def of(cls, budget: int | None) -> Self:
        """That many bytes, or what suits this machine."""
        machine = memory_limit()
        return cls(budget or min(MOST_BY_DEFAULT, int(machine * SHARE)), machine)

    def part(self, share: float) -> Self:
        """Another budget, of so large a share of this one."""
        return type(self)(max(int(self.budget * share), 1), self.machine)

    def prove(self) -> None:
        """See whether this process could still have the whole budget, without holding it.

        Raises:
            ResourceError: it could not, so that what fails to be decoded now is no image's fault.
        """
        try:
            mmap.mmap(-1, self.budget).close()  # costs nothing as long as nobody touches it
        except OSError as error:
            raise ResourceError.out_of_memory() from error

    @contextmanager
    def room(self, weight: int | None) -> Iterator[None]:
        """Hold `weight` bytes inside the ``with``; blocks until they are free.

        What is heavier than the budget, or None, holds all of it and so is alone.

        Raises:
            ImageError: too_large, more than this machine could ever give.
        """
        if weight is not None and weight > SHARE_OF_ONE * self.machine:
            raise ImageError(
                f"decoding it takes {weight / 1e9:.1f} GB of memory, and this machine has "
                f"{self.machine / 1e9:.1f} GB; run where there is more, or make the picture smaller",
                kind="too_large",
                retryable=True,
            )
        taken = self.budget if weight is None else min(weight, self.budget)
        self._take(taken)
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()

    def _take(self, taken: int) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket and taken <= self._free)
            self._queue.popleft()
            self._free -= taken
            self._changed.notify_all()


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may use: of the machine, its control group or its own limits, the least.

    Of its own limits (ulimit -v, -d) counts what is left.

    `root` is where the file system begins, for tests.
    """
    limits = [PAGE * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits(root)]
    for kind, taken in zip((resource.RLIMIT_AS, resource.RLIMIT_DATA), _mapped(), strict=True):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(max(soft - taken, 1))
    return min(limits)


def _mapped() -> tuple[int, int]:
    """Bytes that this process has mapped already: all of them, and those of its data; 0 where unknown."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:  # no Linux, which alone holds a process to these limits
        return 0, 0
    return PAGE * int(pages[0]), PAGE * int(pages[5])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of this process's control groups and of those above them, as far as they can be read."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux, or no /proc
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        here = top / path.lstrip("/")
        for group in (here, *here.parents):
            for name in CGROUP_FILES:
                with suppress(OSError, ValueError):  # not there, or "max" for no limit
                    yield int((group / name).read_text())
            if group == top:
                break
