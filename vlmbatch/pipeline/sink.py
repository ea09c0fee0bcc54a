"""The sink of a run: passes each result to writer, statistics, cache, caller and observers."""

from collections.abc import Awaitable, Callable
from functools import partial

from vlmbatch.cache import Cache
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.events import ImageFinished, tell
from vlmbatch.images import ImageRef, ImageVersion
from vlmbatch.pipeline.anomalies import SystemicFailures
from vlmbatch.pipeline.run_statistics import RunStatistics
from vlmbatch.protocols import Finished, Observer, Writer
from vlmbatch.records import Result


class ResultSink:
    """Takes the results of a run, and holds them back while they may show that the set-up is wrong."""

    def __init__(
        self,
        *,
        finished: Finished | None,
        writer: Writer | None,
        cache: Cache | None,
        deliver: Callable[[Result], Awaitable[None]],
        bugs: Bugs,
        notify: Observer,
    ) -> None:
        """`finished` knows the images of earlier runs; `deliver` gets each result once it is written."""
        self.statistics = RunStatistics()
        self._finished = finished
        self._writer = writer
        self._cache = cache
        self._deliver = deliver
        self._bugs = bugs
        self._notify = notify
        self._answered_before = False
        self._systemic = SystemicFailures(partial(tell, notify), lambda: self._answered_before, bugs)

    def finished(
        self, image: ImageRef, get_version: Callable[[ImageRef], ImageVersion | None]
    ) -> bool | None:
        """Whether an earlier run has finished this image; see protocols.Finished."""
        done = None if self._finished is None else self._finished(image, get_version)
        self._answered_before = self._answered_before or done is True
        return done

    async def take(self, result: Result) -> None:
        """Take this result, and write all results that are not held back."""
        await self._pass_on(self._systemic.look_at(result))

    async def flush(self) -> None:
        """Write the results that were held back."""
        await self._pass_on(self._systemic.rest())

    async def _pass_on(self, results: list[Result]) -> None:
        for result in results:
            if self._writer is not None:
                result = await self._bugs.written(self._writer, result)
            self.statistics.add(result)
            if self._cache is not None:
                self._cache.keep(result)
            await self._deliver(result)
            self._notify(ImageFinished(result=result))
