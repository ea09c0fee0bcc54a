"""IntegerMap behaves like a dict in less memory."""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmbatch.integer_map import IntegerLog, IntegerMap

LARGEST = (1 << 64) - 1
NUMBERS = st.integers(0, 20) | st.integers(0, LARGEST) | st.sampled_from([LARGEST - 1, LARGEST])
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS))
STEPS = st.lists(st.tuples(st.sampled_from(["set", "add"]), NUMBERS, NUMBERS), max_size=100)


@given(logged=PAIRS, steps=STEPS, asked=NUMBERS, most=st.integers(1, 8))
def test_it_does_what_a_dict_does(
    logged: list[tuple[int, int]], steps: list[tuple[str, int, int]], asked: int, most: int
) -> None:
    """After any appends, sets and adds, each key has the same value as in a dict."""
    log = IntegerLog()
    for key, value in logged:
        log.append(key, value)
    tried, expected = IntegerMap.of(log, most), dict(logged)
    assert not len(IntegerMap.of(log))
    for step, key, value in steps:
        if step == "set":
            tried[key] = expected[key] = value
        else:
            assert tried.add(key, value) == (key not in expected)
            expected.setdefault(key, value)
    assert len(tried) == len(expected)
    for key in {asked, *expected}:
        assert tried.get(key) == expected.get(key)


@pytest.mark.parametrize("value", [-1, LARGEST + 1])
def test_a_number_out_of_range_is_refused_and_changes_nothing(value: int) -> None:
    """A number that does not fit into 64 bits is an error, and the map stays unchanged."""
    tried, log = IntegerMap(), IntegerLog()
    for number in range(3):
        tried[number * 2] = number
    for key, put in ((value, 0), (0, value), (1, value)):
        with pytest.raises(OverflowError):
            tried[key] = put
        with pytest.raises(OverflowError):
            log.append(key, put)
    assert not len(IntegerMap.of(log))
    assert tried.get(value) is None
    assert [tried.get(number) for number in range(6)] == [0, None, 1, None, 2, None]


@pytest.mark.parametrize("logged", [False, True])
def test_an_entry_takes_little_memory(logged: bool) -> None:
    """A hundred thousand random entries need at most 24 bytes each at the peak, or 28 if made from a log."""
    numbers, count = random.Random(4), 100_000
    tracemalloc.start()
    try:
        tried, log = IntegerMap(), IntegerLog()
        for _ in range(count):
            if logged:
                log.append(numbers.getrandbits(64), 1)
            else:
                tried[numbers.getrandbits(64)] = 1
        if logged:
            tried = IntegerMap.of(log)
        assert len(tried) == count
        assert tracemalloc.get_traced_memory()[1] < (28 if logged else 24) * count
    finally:
        tracemalloc.stop()
