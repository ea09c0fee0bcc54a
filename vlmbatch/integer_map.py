"""A map of integers in little memory, for facts about millions of images."""

from array import array
from collections import defaultdict

KEY_BYTES = 8
_PART_SHIFT = 51
"""The first 13 bits of a key choose its part. A map of a million entries has about 120 in each part."""


class IntegerMap:
    """Maps integers to integers, all from 0 to 2**64 - 1, at about 20 bytes an entry; a dict needs 120.

    The empty parts of a large map need 2.5 MB in addition.

    Keys should be spread over all 64 bits, like digests. Each part holds the bytes of its keys, in the order
    in which they were set. A search for bytes finds a key. A new value of an existing key is appended, and
    the old value stays in memory. Only one thread at a time may use the map.
    """

    def __init__(self) -> None:
        self._parts: defaultdict[int, tuple[bytearray, array[int]]] = defaultdict(_part)

    def __setitem__(self, key: int, value: int) -> None:
        """Set or replace a value; raises OverflowError for a number that does not fit into 64 bits."""
        sought = key.to_bytes(KEY_BYTES)
        keys, values = self._parts[key >> _PART_SHIFT]
        values.append(value)
        keys += sought

    def add(self, key: int, value: int) -> bool:
        """Set a new key; returns False if it exists. Raises OverflowError as above."""
        if self.get(key) is not None:
            return False
        self[key] = value
        return True

    def get(self, key: int) -> int | None:
        """The last value of a key, or None. Raises OverflowError for a key that does not fit into 64 bits."""
        sought = key.to_bytes(KEY_BYTES)
        keys, values = self._parts[key >> _PART_SHIFT]
        at = keys.rfind(sought)
        while at > 0 and at % KEY_BYTES:  # these bytes are parts of two keys
            at = keys.rfind(sought, 0, at + KEY_BYTES - 1)
        return None if at < 0 else values[at // KEY_BYTES]


def _part() -> tuple[bytearray, "array[int]"]:
    """The keys of a part, and the value of each."""
    return bytearray(), array("Q")
