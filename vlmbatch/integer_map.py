"""A mapping of integers in little memory, for what is remembered of millions of images; it knows none."""

from array import array
from bisect import bisect_left, bisect_right


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

    def discard(self, key: int) -> None:
        """Forget a key, if it is there."""
        block, at, found = self._find(key)
        if found:
            del self._keys[block][at], self._values[block][at]

    def _find(self, key: int) -> tuple[int, int, bool]:
        """The block of a key, its place there, and whether it is there or would have to be inserted."""
        block = bisect_right(self._firsts, key) - 1
        keys = self._keys[block]
        at = bisect_left(keys, key)
        return block, at, at < len(keys) and keys[at] == key

    def _insert(self, block: int, at: int, key: int, value: int) -> None:
        if (key | value) >> 64:  # either array would tell, but then the other might have grown already
            raise OverflowError("keys and values go from 0 to 2**64 - 1")
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
