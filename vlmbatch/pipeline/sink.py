"""The sink of a run: passes each result to writer, statistics, cache, caller and observers."""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial

from vlmbatch.cache import Cache
from vlmbatch.events import ImageFinished, tell
from vlmbatch.images import FileStamp, ImageRef
from vlmbatch.pipeline.anomalies import SystemicFailures
from vlmbatch.protocols import Finished, Observer, Writer
from vlmbatch.records import Endpoint, EndpointSummary, Result, Summary, Usage


class ResultSink:
    """Takes the results of a run, and holds them back while they may show that the set-up is wrong."""

    def __init__(
        self,
        *,
        finished: Finished | None,
        writer: Writer | None,
        cache: Cache | None,
        deliver: Callable[[Result], Awaitable[None]],
        notify: Observer,
    ) -> None:
        """`finished` knows the images of earlier runs; `deliver` gets each result once it is written."""
        self.statistics = RunStatistics()
        self._finished = finished
        self._writer = writer
        self._cache = cache
        self._deliver = deliver
        self._notify = notify
        self._answered_before = False
        self._systemic = SystemicFailures(partial(tell, notify), lambda: self._answered_before)

    def finished(self, image: ImageRef, get_stamp: Callable[[], FileStamp | None]) -> bool | None:
        """Whether an earlier run has finished this image; see protocols.Finished."""
        done = None if self._finished is None else self._finished(image, get_stamp)
        self._answered_before = self._answered_before or done is True
        return done

    async def take(self, result: Result) -> None:
        """Take this result, and write all results that are not held back."""
        await self._pass_on(self._systemic.look_at(result))

    async def rest(self) -> None:
        """Write the results that were held back."""
        await self._pass_on(self._systemic.rest())

    async def _pass_on(self, results: list[Result]) -> None:
        for result in results:
            if self._writer is not None:
                await self._writer.write(result)
            self.statistics.add(result)
            if self._cache is not None:
                self._cache.keep(result)
            await self._deliver(result)
            self._notify(ImageFinished(result=result))


class RunStatistics:
    """Counts results as they are written; its clock starts when it is made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._succeeded = 0
        self._failed = 0
        self._duplicates = 0
        self._cached = 0
        self._fallbacks = 0
        self._usage = Usage()
        self._by_endpoint: dict[tuple[str, str, str], EndpointSummary] = {}

    def add(self, result: Result) -> None:
        """Count a result."""
        self._count_endpoint(result)
        if result.completion is None:
            self._failed += 1
        else:
            self._succeeded += 1
            self._duplicates += result.duplicate_of is not None
            self._cached += result.cached
            self._fallbacks += result.fallback is not None
            self._usage += result.completion.usage

    def _count_endpoint(self, result: Result) -> None:
        """Count it for the endpoint of its last attempt, if there was one."""
        if result.is_known or not result.attempts:
            return
        before = self._of(result.endpoint)
        usage = result.completion.usage if result.completion else Usage()
        self._by_endpoint[_key(result.endpoint)] = replace(
            before,
            answered=before.answered + result.ok,
            failed=before.failed + (not result.ok),
            usage=before.usage + usage,
        )

    def _of(self, endpoint: Endpoint) -> EndpointSummary:
        nothing = EndpointSummary(backend=endpoint.backend, url=endpoint.url, model=endpoint.model)
        return self._by_endpoint.get(_key(endpoint), nothing)

    def summary(
        self,
        *,
        skipped: int,
        failed_before: int,
        unreadable: int,
        ignored: int,
        stopped: bool,
        endpoints: Iterable[Endpoint] = (),
        cost: float | None = None,
    ) -> Summary:
        """The summary so far, with the images that were not asked about and a row for each endpoint."""
        return Summary(
            total=self._succeeded + self._failed + skipped + failed_before,
            succeeded=self._succeeded,
            failed=self._failed,
            skipped=skipped,
            failed_before=failed_before,
            unreadable=unreadable,
            ignored=ignored,
            duplicates=self._duplicates,
            cached=self._cached,
            fallbacks=self._fallbacks,
            usage=self._usage,
            duration_s=self._clock() - self._began,
            stopped=stopped,
            endpoints=tuple(map(self._of, endpoints)),
            cost=cost,
        )


def _key(endpoint: Endpoint) -> tuple[str, str, str]:
    return endpoint.backend, endpoint.url, endpoint.model
