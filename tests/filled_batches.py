"""Fills and collects batches inside a test, and works on their jobs without a model."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redis_server import RedisServer
from written_results import ENDPOINT, RUN, answered, failed

from vlmbatch.config import RunConfig
from vlmbatch.events import Event, SourceProblem
from vlmbatch.images import FileStamp, ImageFacts
from vlmbatch.jobs.claims import Claim, Claims
from vlmbatch.jobs.collect import Collection
from vlmbatch.jobs.enqueue import EnqueueCounts, Enqueuer
from vlmbatch.jobs.job_queue import JobQueue, queues_of
from vlmbatch.pipeline.fingerprint import answer_settings
from vlmbatch.records import Result, Summary

SETTINGS = answer_settings(RunConfig.of("photos"), ENDPOINT, "Describe this image.")


def of_queue(redis: RedisServer, *paths: str, **options: Any) -> RunConfig:
    """The options of enqueue or collect for this Redis, with the folder `store` as the store."""
    usual = {"queue": redis.url, "store": str(Path("store").absolute())}
    return RunConfig.of(*(paths or ("photos",)), **(usual | options))


@dataclass(slots=True)
class Filled:
    """How a call of enqueue ended."""

    all_counts: EnqueueCounts
    problems: list[SourceProblem] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int]:
        """How many images were new, and how many were known."""
        return self.all_counts.new, self.all_counts.known


async def filled(config: RunConfig) -> Filled:
    """Enqueue the images of this config."""
    problems: list[SourceProblem] = []
    enqueuer = Enqueuer(config, problems.append)
    await enqueuer.run()
    return Filled(enqueuer.counts, problems)


def in_queue(queue: JobQueue, most: int = 1000) -> list[Claim]:
    """Claim the jobs that wait."""
    return Claims(queue.connection, "stub", queues_of(["m"]), print).claim(most)


def finish(queue: JobQueue, claims: Iterable[Claim], *, failing: str = "") -> None:
    """Give each of these jobs an answer; those whose image has `failing` in its name fail for now."""
    ours = Claims(queue.connection, "stub", queues_of(["m"]), print)
    for claim in claims:
        job = claim.job
        run, _ = ours.name_run(job.batch, job.question, RUN, SETTINGS)
        stamp = FileStamp(job.images[0].bytes or 0, job.images[0].mtime or 0.0)
        make = failed if failing and failing in job.image_id else answered
        more = {"retryable": True} if make is failed else {}
        made = make(job.image_id, run=run, **more)
        digest = hashlib.sha256(job.id.encode()).hexdigest() if made.ok else None
        result = replace(made, image=ImageFacts.of(stamp, digest))
        ours.finish([(claim, result.to_record())])


@dataclass(slots=True)
class Collected:
    """How a collection ended."""

    results: list[Result] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    summary: Summary | None = None

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


async def collected(
    config: RunConfig, on_event: Callable[[Event], object] = lambda event: None, *, waits: bool = False
) -> Collected:
    """Collect the batch of this config; `on_event` gets each event in the event loop."""
    done = Collected()
    collection = Collection(config, [done.events.append, on_event], waits=waits, poll_s=0.02)
    async with aclosing(aiter(collection)) as results:
        async for result in results:
            done.results.append(result)
    done.summary = collection.summary
    return done
