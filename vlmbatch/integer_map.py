"""A mapping of integers to integers in little memory, for facts about millions of images."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Self

OUT_OF_RANGE = "keys and values go from 0 to 2**64 - 1"


class IntegerMap:
    """Maps integers to integers, all from 0 to 2**64 - 1, at about 20 bytes an entry; a dict needs 120.

    Keys are sorted in blocks, like the leaves of a B-tree, and found by bisection. Only one thread at a time
    may use it.
    """

    def __init__(self, most: int = 512) -> None:
        """A block of more than `most` entries is split in two; insertion into longer blocks is slower."""
        self._most = most
        self._firsts = [0]  # a lower bound of the keys of each block; keys before the block are less
        self._keys = [array("Q")]
        self._values = [array("Q")]

    @classmethod
    def of(cls, log: "IntegerLog", most: int = 512) -> Self:
        """All entries of a log, which is empty afterwards; takes a third of the time of single insertions."""
        made = cls(most)
        for part in log.drain():
            ordered = sorted(part)
            for start in range(0, len(ordered), most):
                block = ordered[start : start + most]
                made._firsts.append(block[0])
                made._keys.append(array("Q", block))
                made._values.append(array("Q", map(part.__getitem__, block)))
        return made

    def __len__(self) -> int:
        return sum(map(len, self._keys))

    def __setitem__(self, key: int, value: int) -> None:
        """Set or replace a value; raises OverflowError for a number that does not fit into 64 bits."""
        block, at, found = self._find(key)
        if found:
            self._values[block][at] = value
        else:
            self._insert(block, at, key, value)

    def add(self, key: int, value: int) -> bool:
        """Set a new key; returns False if it exists. Raises OverflowError as above."""
        block, at, found = self._find(key)
        if not found:
            self._insert(block, at, key, value)
        return not found

    def get(self, key: int) -> int | None:
        """The value of a key, or None."""
        block, at, found = self._find(key)
        return self._values[block][at] if found else None

    def _find(self, key: int) -> tuple[int, int, bool]:
        """The block of a key, its place there, and whether it exists; a new key belongs at that place."""
        block = bisect_right(self._firsts, key) - 1
        keys = self._keys[block]
        at = bisect_left(keys, key)
        return block, at, at < len(keys) and keys[at] == key

    def _insert(self, block: int, at: int, key: int, value: int) -> None:
        if (key | value) >> 64:  # either array would raise, but the other might have grown already
            raise OverflowError(OUT_OF_RANGE)
        self._keys[block].insert(at, key)
        self._values[block].insert(at, value)
        if len(self._keys[block]) > self._most:
            self._cut(block)

    def _cut(self, block: int) -> None:
        keys, values = self._keys[block], self._values[block]
        half = len(keys) // 2
        self._firsts.insert(block + 1, keys[half])
        self._keys[block : block + 1] = keys[:half], keys[half:]
        self._values[block : block + 1] = values[:half], values[half:]


class IntegerLog:
    """The entries of a future IntegerMap, quick to append; the last value of a key counts.

    Entries are stored unsorted in 1,024 parts by the first bits of their keys, so that each part can be
    sorted in little memory. Keys should be spread over all 64 bits, like digests.
    """

    def __init__(self) -> None:
        self._parts = [(array("Q"), array("Q")) for _ in range(1024)]

    def append(self, key: int, value: int) -> None:
        """Append an entry; raises OverflowError for a number that does not fit into 64 bits."""
        if (key | value) >> 64:
            raise OverflowError(OUT_OF_RANGE)
        keys, values = self._parts[key >> 54]
        keys.append(key)
        values.append(value)

    def drain(self) -> Iterator[dict[int, int]]:
        """Yield each part, in the order of the keys, and remove it."""
        parts, self._parts = self._parts, IntegerLog()._parts
        while parts:
            yield dict(zip(*parts.pop(0), strict=True))
