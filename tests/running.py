"""Runs a Batch inside a test, without waiting between attempts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.errors import VlmbatchError
from vlmbatch.events import Event
from vlmbatch.records import Result, Summary


@dataclass
class Ran:
    """The results, events, summary and error of a run."""

    results: list[Result] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    summary: Summary | None = None
    error: VlmbatchError | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of all results, sorted."""
        return sorted(result.id for result in self.results)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


async def briefly(seconds: float) -> None:
    """Sleep a hundredth of the time, which is enough for a real endpoint to come up."""
    await asyncio.sleep(seconds / 100)


async def ran(
    *paths: str, on_event: Callable[[Event], object] = lambda event: None, **options: object
) -> Ran:
    """Run to the end, or to the error that ends the run; `on_event` gets each event in the event loop."""
    done = Ran()
    config = RunConfig.of(*(paths or ("photos",)), **options)
    batch = Batch(config, [done.events.append, on_event], sleep=briefly)
    try:
        async for result in batch:
            done.results.append(result)
    except VlmbatchError as error:
        done.error = error
    done.summary = batch.summary
    return done
