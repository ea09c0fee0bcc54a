"""A mapping of integers in little memory, for what is remembered of millions of images; it knows none."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Self

OUT_OF_RANGE = "keys and values go from 0 to 2**64 - 1"


class IntegerMap:
    """Integers by integers, all from 0 to 2**64 - 1, at about 20 bytes an entry where a dict takes 120.

    Keys lie sorted in blocks, as in the leaves of a B-tree, and are found by bisection. For one thread at a
    time.
    """

    def __init__(self, most: int = 512) -> None:
        """A block of more than `most` entries is cut in two; it takes longer to insert into longer ones."""
        self._most = most
        self._firsts = [0]  # no key of a block is less than its first, nor that of the next block greater
        self._keys = [array("Q")]
        self._values = [array("Q")]

    @classmethod
    def of(cls, log: "IntegerLog", most: int = 512) -> Self:
        """All that was appended to a log, which is empty then; in a third of the time of setting it."""
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
        """Set or replace; raises OverflowError for what does not fit into 64 bits."""
        block, at, found = self._find(key)
        if found:
            self._values[block][at] = value
        else:
            self._insert(block, at, key, value)

    def add(self, key: int, value: int) -> bool:
        """Set a key that is not there yet; False where it is. Raises OverflowError as above."""
        block, at, found = self._find(key)
        if not found:
            self._insert(block, at, key, value)
        return not found

    def get(self, key: int) -> int | None:
        """The value of a key, or None."""
        block, at, found = self._find(key)
        return self._values[block][at] if found else None

    def _find(self, key: int) -> tuple[int, int, bool]:
        """The block of a key, its place there, and whether it is there or would have to be inserted."""
        block = bisect_right(self._firsts, key) - 1
        keys = self._keys[block]
        at = bisect_left(keys, key)
        return block, at, at < len(keys) and keys[at] == key

    def _insert(self, block: int, at: int, key: int, value: int) -> None:
        if (key | value) >> 64:  # either array would tell, but then the other might have grown already
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
    """What an IntegerMap is to be made of, taken in as fast as it comes; the last value of a key counts.

    Entries lie unsorted in 1,024 parts by the first bits of their keys, so that each part can be sorted in
    little memory. Keys should be spread over all 64 bits, as digests are.
    """

    def __init__(self) -> None:
        self._parts = [(array("Q"), array("Q")) for _ in range(1024)]

    def append(self, key: int, value: int) -> None:
        """Take an entry in; raises OverflowError for what does not fit into 64 bits."""
        if (key | value) >> 64:
            raise OverflowError(OUT_OF_RANGE)
        keys, values = self._parts[key >> 54]
        keys.append(key)
        values.append(value)

    def drain(self) -> Iterator[dict[int, int]]:
        """Each part, in the order of the keys; nothing of it is kept."""
        parts, self._parts = self._parts, IntegerLog()._parts
        while parts:
            yield dict(zip(*parts.pop(0), strict=True))
