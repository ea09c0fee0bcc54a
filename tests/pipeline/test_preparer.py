"""The notice about slow preparation, which the tests of whole runs do not show."""

import asyncio
import time

from vlmbatch.events import Event, Notice
from vlmbatch.pipeline.slow_watch import SlowWatch


async def events_after(*, began_s_ago: float | None, slow_s: float = 0.05) -> list[Event]:
    """The events of a watch after some checks of an image that a thread began this long ago."""
    told = list[Event]()
    watch = SlowWatch("photos/slow.jpg", told.append, slow_s=slow_s)
    with watch:
        watch.began = None if began_s_ago is None else time.monotonic() - began_s_ago
        await asyncio.sleep(6 * slow_s)
    await asyncio.sleep(2 * slow_s)
    return told


async def test_an_image_that_takes_long_is_named_once() -> None:
    """An image at which a disk or decoder hangs is named once in a notice."""
    (told,) = await events_after(began_s_ago=0)
    assert isinstance(told, Notice)
    assert told.message.startswith("photos/slow.jpg: still being read and decoded")
    assert "--exclude" in told.message


async def test_waiting_for_a_thread_is_not_slow() -> None:
    """An image that no thread has begun causes no notice."""
    assert await events_after(began_s_ago=None) == []


async def test_an_image_that_is_ready_in_time_causes_no_notice() -> None:
    """An image that is ready in time causes no notice, even later."""
    told = list[Event]()
    with SlowWatch("photos/quick.jpg", told.append, slow_s=0.05):
        pass
    await asyncio.sleep(0.1)
    assert told == []
