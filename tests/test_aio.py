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
    """All remaining items."""
    found = []
    while (item := await items.take()) is not None:
        found.append(item)
    return found


@given(st.lists(st.integers(), max_size=50), st.integers(1, 7))
def test_all_items_come_in_order(numbers: list[int], ahead: int) -> None:
    """For any number of items and any limit, every item comes once and in order."""
    assert asyncio.run(taken(ReadAhead(iter(numbers), ahead=ahead, name="test"))) == numbers


async def test_it_reads_ahead_up_to_its_limit() -> None:
    """Of endless items, no more are read than the limit and one."""
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


async def test_an_item_comes_as_soon_as_it_is_found() -> None:
    """The first item can be taken before the second is found."""
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
    """take() raises an exception of the iterator after it has returned the items before it."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk failed")

    items = ReadAhead(broken(), ahead=9, name="test")
    assert await items.take() == 1
    for _ in range(2):
        with pytest.raises(OSError, match="the disk failed"):
            await items.take()


async def test_closing_ends_the_thread() -> None:
    """close() ends the thread, even if it waits because the limit is reached."""
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
