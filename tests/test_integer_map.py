"""IntegerMap behaves like a dict in less memory."""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmbatch.integer_map import IntegerMap

LARGEST = (1 << 64) - 1
NUMBERS = (
    st.integers(0, 20)
    | st.integers(0, LARGEST)
    | st.sampled_from([LARGEST - 1, LARGEST, 1 << 8, 1 << 56, 0x0101010101010101])
    | st.lists(st.sampled_from([0, 1, 255]), min_size=8, max_size=8).map(lambda some: int.from_bytes(some))
)
STEPS = st.lists(st.tuples(st.sampled_from(["set", "add"]), NUMBERS, NUMBERS), max_size=100)


@given(steps=STEPS, asked=NUMBERS)
def test_it_does_what_a_dict_does(steps: list[tuple[str, int, int]], asked: int) -> None:
    """After any sets and adds, each key has the same value as in a dict, also among keys of similar bytes."""
    tried, expected = IntegerMap(), dict[int, int]()
    for step, key, value in steps:
        if step == "set":
            tried[key] = expected[key] = value
        else:
            assert tried.add(key, value) == (key not in expected)
            expected.setdefault(key, value)
    for key in {asked, *expected}:
        assert tried.get(key) == expected.get(key)


@pytest.mark.parametrize("value", [-1, LARGEST + 1])
def test_a_number_out_of_range_is_refused_and_changes_nothing(value: int) -> None:
    """A number that does not fit into 64 bits is an error, and the map stays unchanged."""
    tried = IntegerMap()
    for number in range(3):
        tried[number * 2] = number
    for key, put in ((value, 0), (0, value), (1, value)):
        with pytest.raises(OverflowError):
            tried[key] = put
    with pytest.raises(OverflowError):
        tried.get(value)
    assert [tried.get(number) for number in range(6)] == [0, None, 1, None, 2, None]


def test_an_entry_takes_little_memory() -> None:
    """200,000 random entries need at most 24 bytes each at the peak, beside the 2.5 MB of the parts."""
    numbers, count = random.Random(4), 200_000
    tracemalloc.start()
    try:
        tried = IntegerMap()
        for _ in range(count):
            tried[numbers.getrandbits(64)] = 1
        assert tracemalloc.get_traced_memory()[1] < 24 * count + 2_500_000
    finally:
        tracemalloc.stop()
