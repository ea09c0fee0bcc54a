"""Lines of many tasks are written together."""

import asyncio

from vlmbatch.writers.append import Lines


class Slow:
    """Writes groups of lines, each of which waits for the gate; writes at most `room` lines in all."""

    def __init__(self, room: int = 999) -> None:
        self.groups: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.room = room

    async def put(self, lines: list[bytes]) -> int:
        self.groups.append(lines)
        await self.gate.wait()
        there = min(self.room, len(lines))
        self.room -= there
        return there


async def adding(lines: Lines, numbers: range) -> list[asyncio.Task[bool]]:
    """Tasks that have all begun to add a line each."""
    tasks = [asyncio.create_task(lines.add(b"%d\n" % n)) for n in numbers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_lines_that_come_during_a_write_are_written_together() -> None:
    """A hundred tasks cost two writes, and every line is written once and in order."""
    slow = Slow()
    lines = Lines(slow.put)
    tasks = await adding(lines, range(1))
    tasks += await adding(lines, range(1, 100))
    slow.gate.set()
    assert all(await asyncio.gather(*tasks))
    assert slow.groups == [[b"0\n"], [b"%d\n" % n for n in range(1, 100)]]


async def test_each_task_learns_whether_its_line_was_written() -> None:
    """If a group of lines is written in part, each task gets the outcome of its own line."""
    slow = Slow(room=3)
    lines = Lines(slow.put)
    tasks = await adding(lines, range(5))
    slow.gate.set()
    assert await asyncio.gather(*tasks) == [True, True, True, False, False]


async def test_a_cancelled_task_is_not_written_before_its_turn() -> None:
    """The line of a task that is cancelled before its turn is not written, and one in progress is."""
    slow = Slow()
    lines = Lines(slow.put)
    tasks = await adding(lines, range(3))
    tasks += await adding(lines, range(3, 6))
    for task in (tasks[0], tasks[4]):
        task.cancel()
    await asyncio.sleep(0)
    slow.gate.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ended] == [
        asyncio.CancelledError,
        bool,
        bool,
        bool,
        asyncio.CancelledError,
        bool,
    ]
    assert b"".join(line for group in slow.groups for line in group) == b"0\n1\n2\n3\n5\n"


async def test_closing_waits_for_lines_on_their_way() -> None:
    """close() runs its end only after the lines in progress are written."""
    slow = Slow()
    lines = Lines(slow.put)
    tasks = await adding(lines, range(2))
    ended = []

    async def end() -> None:
        ended.append([task.done() for task in tasks])

    closing = asyncio.create_task(lines.alone(end))
    await asyncio.sleep(0)
    assert not ended
    slow.gate.set()
    await closing
    assert b"".join(line for group in slow.groups for line in group) == b"0\n1\n"
    await asyncio.gather(*tasks)
