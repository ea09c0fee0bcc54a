"""What is done to get an image ready, where the tests of whole runs do not show it."""

import asyncio
import time

from vlmbatch.events import Event, Notice
from vlmbatch.pipeline.preparer import SlowWatch


async def told_after(*, began_s_ago: float | None, slow_s: float = 0.05) -> list[Event]:
    """What a watch has said after some looks at an image that a thread began so long ago."""
    told = list[Event]()
    watch = SlowWatch("photos/slow.jpg", told.append, slow_s=slow_s)
    with watch:
        watch.began = None if began_s_ago is None else time.monotonic() - began_s_ago
        await asyncio.sleep(6 * slow_s)
    await asyncio.sleep(2 * slow_s)
    return told


async def test_an_image_that_takes_long_is_named_once() -> None:
    """A disk or decoder that hangs shows by the image that it hangs at."""
    (told,) = await told_after(began_s_ago=0)
    assert isinstance(told, Notice)
    assert told.message.startswith("photos/slow.jpg: still being read and decoded")
    assert "--exclude" in told.message


async def test_waiting_for_a_thread_is_not_slow() -> None:
    """As long as no thread has begun with an image nothing is said of it."""
    assert await told_after(began_s_ago=None) == []


async def test_an_image_that_is_ready_in_time_is_not_told_of() -> None:
    """When the work has ended nobody looks any more."""
    told = list[Event]()
    with SlowWatch("photos/quick.jpg", told.append, slow_s=0.05):
        pass
    await asyncio.sleep(0.1)
    assert told == []
