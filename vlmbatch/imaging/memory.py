"""How much memory decoding may take, in all threads together: by default a quarter of what there is."""

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
"""A picture that alone would take more than this share of all memory is refused: it would end the run."""

FILES_SHARE = 0.25
"""Files that are read beforehand have a budget of their own, so that who holds a file can wait for room."""


class DecodeMemory:
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
