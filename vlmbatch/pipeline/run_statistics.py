"""The counts of a run, for its summary."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from vlmbatch.records import Endpoint, EndpointSummary, Result, Summary, Usage


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
        self._reduced = 0
        self._frames = 0
        self._usage = Usage()
        self._by_endpoint: dict[tuple[str, str, str], EndpointSummary] = {}

    def add(self, result: Result) -> None:
        """Count a result."""
        self._count_endpoint(result)
        self._frames += any((facts.frames or 1) > 1 for facts in (result.image, *result.more_images))
        if result.completion is None:
            self._failed += 1
        else:
            self._succeeded += 1
            self._duplicates += result.duplicate_of is not None
            self._cached += result.cached
            self._fallbacks += result.fallback is not None
            self._reduced += result.reduced
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
        stopped: bool,
        skipped: int = 0,
        failed_before: int = 0,
        unreadable: int = 0,
        ignored: int = 0,
        ignored_kinds: Mapping[str, int] = MappingProxyType({}),
        skipped_entries: Mapping[str, int] = MappingProxyType({}),
        empty_paths: Sequence[str] = (),
        endpoints: Iterable[Endpoint] = (),
        cost: float | None = None,
    ) -> Summary:
        """The summary so far, with the images that needed no request and a row for each of `endpoints`."""
        return Summary(
            total=self._succeeded + self._failed + skipped + failed_before,
            succeeded=self._succeeded,
            failed=self._failed,
            skipped=skipped,
            failed_before=failed_before,
            unreadable=unreadable,
            ignored=ignored,
            ignored_kinds=dict(ignored_kinds),
            skipped_entries=dict(skipped_entries),
            empty_paths=tuple(empty_paths),
            frames=self._frames,
            duplicates=self._duplicates,
            cached=self._cached,
            fallbacks=self._fallbacks,
            reduced=self._reduced,
            usage=self._usage,
            duration_s=self._clock() - self._began,
            stopped=stopped,
            endpoints=tuple(map(self._of, endpoints)),
            cost=cost,
        )


def _key(endpoint: Endpoint) -> tuple[str, str, str]:
    return endpoint.backend, endpoint.url, endpoint.model
