"""Limits the memory for decoding in all threads together: by default a quarter of the machine's memory."""

import mmap
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from vlmbatch.errors import ImageError, ResourceError
from vlmbatch.machine import memory_limit

MOST_BY_DEFAULT = 2 * 1024**3
SHARE = 0.25
SHARE_OF_ONE = 0.8
"""A picture that alone needs more than this share of all memory is refused: it would end the run."""

FILES_SHARE = 0.25
"""Files that are read ahead have a budget of their own, so that a task with a file can wait for memory."""


class DecodeMemory:
    """A memory budget in bytes, shared by the decoding threads: first come, first served."""

    def __init__(self, budget: int, machine: int) -> None:
        """`machine` is the total memory in bytes."""
        self.budget = budget
        self.machine = machine
        self._free = budget
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @classmethod
    def of(cls, budget: int | None) -> Self:
        """A budget of this many bytes, or the default for this machine."""
        machine = memory_limit()
        return cls(budget or min(MOST_BY_DEFAULT, int(machine * SHARE)), machine)

    def part(self, share: float) -> Self:
        """A separate budget, a share of this one in size."""
        return type(self)(max(int(self.budget * share), 1), self.machine)

    def prove(self) -> None:
        """Check that this process could still allocate the whole budget, without holding it.

        Raises:
            ResourceError: it cannot, so that a decoding failure is not the fault of its image.
        """
        try:
            mmap.mmap(-1, self.budget).close()  # untouched pages cost nothing
        except OSError as error:
            raise ResourceError.out_of_memory() from error

    @contextmanager
    def room(self, weight: int | None) -> Iterator[None]:
        """Hold `weight` bytes inside the ``with``; blocks until they are free.

        A weight above the budget, or None, holds the whole budget, so that no other image is decoded.

        Raises:
            ImageError: too_large, more than this machine can ever provide.
        """
        if weight is not None and weight > SHARE_OF_ONE * self.machine:
            raise ImageError(
                f"decoding it takes {weight / 1e9:.1f} GB of memory, and this machine has "
                f"{self.machine / 1e9:.1f} GB; use a machine with more memory, or make the image smaller",
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
