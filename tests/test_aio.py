"""The small parts for an event loop: items of an iterator that blocks, and the error to tell of a group."""

import asyncio
import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from vlmbatch.aio import ReadAhead, first
from vlmbatch.errors import OutputError


async def taken(items: ReadAhead[int]) -> list[int]:
    """All that can be taken."""
    found = []
    while (item := await items.take()) is not None:
        found.append(item)
    return found


@given(st.lists(st.integers(), max_size=50), st.integers(1, 7))
def test_all_items_come_in_order(numbers: list[int], ahead: int) -> None:
    """Whatever the length and however few may wait, everything comes once and in its order."""
    assert asyncio.run(taken(ReadAhead(iter(numbers), ahead=ahead, name="test"))) == numbers


async def test_it_runs_ahead_so_far_and_no_farther() -> None:
    """Of endless items no more are iterated than one and those that may wait."""
    begun = 0

    def endless() -> Iterator[int]:
        nonlocal begun
        for n in itertools.count():
            begun += 1
            yield n

    items = ReadAhead(endless(), ahead=5, name="test")
    for n in range(20):
        assert await items.take() == n
        assert begun <= n + 7
    items.close()


async def test_an_item_is_there_as_soon_as_it_is_found() -> None:
    """The first path of a list can be taken while the second has not come yet."""
    gate = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        gate.wait()
        yield 2

    items = ReadAhead(slow(), ahead=64, name="test")
    assert await items.take() == 1
    second = asyncio.create_task(items.take())
    await asyncio.sleep(0)
    assert not second.done()
    gate.set()
    assert await second == 2
    assert await items.take() is None


async def test_an_error_comes_after_the_items_before_it() -> None:
    """What iterating raises reaches the taker, and nothing that was found before is lost."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk failed")

    items = ReadAhead(broken(), ahead=9, name="test")
    assert await items.take() == 1
    for _ in range(2):
        with pytest.raises(OSError, match="the disk failed"):
            await items.take()


async def test_closing_ends_the_thread() -> None:
    """Nobody takes any more: the thread that waits for room ends."""
    items = ReadAhead(iter(range(100)), ahead=2, name="to-be-closed")
    assert await items.take() == 0
    items.close()
    until(lambda: "to-be-closed" not in [thread.name for thread in threading.enumerate()])


def test_an_error_of_ours_is_told_before_a_bug() -> None:
    """Of errors that came together, also in groups in groups, the one with words and an exit code is told."""
    ours = OutputError("the disk is full")
    inner = ExceptionGroup("inner", [ValueError("a bug"), ours])
    assert first(ExceptionGroup("outer", [KeyError("another bug"), inner])) is ours


def test_a_bug_alone_is_told() -> None:
    """Of a group without an error of ours its first is told, and what is in no group is told as it is."""
    bug = ValueError("a bug")
    assert first(ExceptionGroup("outer", [bug, KeyError("another bug")])) is bug
    assert first(bug) is bug
