"""The small parts for an event loop: items of an iterator that blocks, and the error to tell of a group."""

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from vlmbatch.aio import ReadAhead, Turns, first, threads
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


async def soon(holds: Callable[[], object]) -> None:
    """Let the event loop run until the condition is true."""
    async with asyncio.timeout(240):
        while not holds():  # noqa: ASYNC110  # the condition is about threads
            await asyncio.sleep(0.002)


async def test_threads_return_results_and_raise_errors() -> None:
    """Each of many calls gets its own result, or its own exception."""

    def work(number: int) -> int:
        if number % 3 == 0:
            raise OutputError(str(number))
        return number

    with threads(3, "test") as pool:
        calls = (pool.call(partial(work, number), list) for number in range(100))
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(each) for each in ended] == [str(number) for number in range(100)]
    assert {type(each) for each in ended} == {int, OutputError}


async def test_abandoned_work_is_told_once_it_has_ended() -> None:
    """Work that runs while its caller is cancelled goes on; work that waits for a thread never begins."""
    begun, gate, told = list[str](), threading.Event(), list[str]()

    def work(name: str) -> None:
        begun.append(name)
        gate.wait()

    with threads(1, "test") as pool:
        calls = [
            asyncio.create_task(pool.call(partial(work, name), partial(told.append, name)))
            for name in ("first", "second")
        ]
        await soon(lambda: begun)
        for call in calls:
            call.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError)
            for each in await asyncio.gather(*calls, return_exceptions=True)
        )
        await soon(lambda: told == ["second"])
        gate.set()
        await soon(lambda: told == ["second", "first"])
    assert begun == ["first"]


async def test_work_that_has_ended_is_told_to_a_caller_that_is_cancelled() -> None:
    """A call that is cancelled between the end of its work and its own turn is abandoned, too."""
    told = list[str]()
    with threads(1, "test") as pool:
        call = asyncio.create_task(pool.call(list, partial(told.append, "abandoned")))
        await asyncio.sleep(0)
        pool.submit(list).result()  # now the only thread has ended the first work, and the loop is behind
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await soon(lambda: told == ["abandoned"])


async def test_threads_keep_no_result_and_no_error() -> None:
    """A result, and what an error's frames hold, are freed without a search for cycles."""

    class Picture:
        """Anything large."""

    kept = list["weakref.ref[Picture]"]()

    def work(*, fails: bool) -> Picture:
        picture = Picture()
        kept.append(weakref.ref(picture))
        if fails:
            raise OutputError("x")
        return picture

    gc.disable()
    try:
        with threads(1, "test") as pool:
            await pool.call(partial(work, fails=False), list)
            with suppress(OutputError):
                await pool.call(partial(work, fails=True), list)
            await soon(lambda: not any(each() for each in kept))
    finally:
        gc.enable()


async def test_the_thread_tells_once_it_has_read_far_enough_ahead() -> None:
    """`rested` is set once items wait in the queue, or at the end of a few items; never without an item."""
    many = ReadAhead(iter(range(100)), ahead=3, name="many")
    assert await many.take() == 0
    await many.rested.wait()
    many.close()
    few = ReadAhead(iter(range(2)), ahead=3, name="few")
    assert [await few.take() for _ in range(3)] == [0, 1, None]
    await few.rested.wait()
    none = ReadAhead(iter([]), ahead=3, name="none")
    assert await none.take() is None
    until(lambda: "none" not in {thread.name for thread in threading.enumerate()})
    await asyncio.sleep(0)
    assert not none.rested.is_set()


async def test_items_are_taken_as_they_come() -> None:
    """take_some() gives the items that are there, does not wait for more, and gives nothing at the end."""
    go_on = threading.Event()

    def numbers() -> Iterator[int]:
        yield from range(5)
        go_on.wait(240)
        yield 5

    items = ReadAhead(numbers(), ahead=9, name="some")
    first = await items.take_some(3)
    while len(first) < 5:
        first += await items.take_some(3)
    assert first == [0, 1, 2, 3, 4]
    go_on.set()
    assert [await items.take_some(3), await items.take_some(3)] == [[5], []]


async def test_clients_take_turns() -> None:
    """A client with much work delays the work of another by one piece; cancelled work is not begun."""
    turns, go_on, done = Turns("test"), threading.Event(), list[str]()

    def work(name: str) -> str:
        go_on.wait(120)
        done.append(name)
        if name == "b1":
            raise OutputError(name)
        return name

    names = ("a0", "a1", "a2", "a3", "b0", "b1", "c0")
    calls = [asyncio.create_task(turns.call(name[0], partial(work, name))) for name in names]
    await asyncio.sleep(0)  # now each has handed over its work
    calls[2].cancel()
    await asyncio.sleep(0)
    go_on.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(done) == ["a0", "a1", "a3", "b0", "b1", "c0"]
    assert (done[:2], done.index("c0") < 4, done[-1]) == (["a0", "b0"], True, "a3")
    assert [type(each) for each in results] == [str, str, asyncio.CancelledError, str, str, OutputError, str]
