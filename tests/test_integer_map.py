"""A mapping of integers in little memory is a mapping."""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmbatch.integer_map import IntegerMap

LARGEST = (1 << 64) - 1
NUMBERS = st.integers(0, 20) | st.integers(0, LARGEST) | st.sampled_from([LARGEST - 1, LARGEST])
STEPS = st.lists(st.tuples(st.sampled_from(["set", "add", "discard"]), NUMBERS, NUMBERS), max_size=100)


@given(steps=STEPS, asked=NUMBERS, most=st.integers(1, 8))
def test_it_does_what_a_dict_does(steps: list[tuple[str, int, int]], asked: int, most: int) -> None:
    """Whatever is set, added and discarded, each key has the value that a dict has for it, and no other."""
    tried, expected = IntegerMap(most), dict[int, int]()
    for step, key, value in steps:
        if step == "set":
            tried[key] = expected[key] = value
        elif step == "add":
            assert tried.add(key, value) == (key not in expected)
            expected.setdefault(key, value)
        else:
            tried.discard(key)
            expected.pop(key, None)
    assert len(tried) == len(expected)
    for key in {asked, *(key for _, key, _ in steps)}:
        assert tried.get(key) == expected.get(key)


@pytest.mark.parametrize("value", [-1, LARGEST + 1])
def test_what_is_out_of_range_is_refused_and_changes_nothing(value: int) -> None:
    """A number that does not fit into 64 bits is an error, and all that was there stays as it was."""
    tried = IntegerMap()
    for number in range(3):
        tried[number * 2] = number
    for key, put in ((value, 0), (0, value), (1, value)):
        with pytest.raises(OverflowError):
            tried[key] = put
    assert tried.get(value) is None
    assert [tried.get(number) for number in range(6)] == [0, None, 1, None, 2, None]


def test_an_entry_takes_little_memory() -> None:
    """A hundred thousand entries in random order take less than 24 bytes each."""
    numbers = random.Random(4)
    tracemalloc.start()
    try:
        tried = IntegerMap()
        for _ in range(100_000):
            tried[numbers.getrandbits(64)] = 1
        assert tracemalloc.get_traced_memory()[0] < 24 * 100_000
    finally:
        tracemalloc.stop()
