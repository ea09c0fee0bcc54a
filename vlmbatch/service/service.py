"""The parts of a running service, which the gate and the routes share."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.errors import FailureKind, QueueAwayError, QueueFullError, StoreAwayError
from vlmbatch.events import EndpointResumed, Event
from vlmbatch.observers.format import duration
from vlmbatch.observers.notices import Notices
from vlmbatch.service.admission import Admission
from vlmbatch.service.body import BODIES, BodyRoom
from vlmbatch.service.call import Call, route_of
from vlmbatch.service.fetch import FetchError, UrlFetcher
from vlmbatch.service.keys import KeyRing
from vlmbatch.service.log import ServiceLog
from vlmbatch.service.metrics import ServiceMetrics
from vlmbatch.service.models import Models
from vlmbatch.service.problems import Problem, RequestKind
from vlmbatch.service.queue_metrics import QueueFacts
from vlmbatch.service.rate_limits import RateLimits
from vlmbatch.service.uploads import checked, decoded

if TYPE_CHECKING:
    from vlmbatch.observers.trace_export import TraceExport
    from vlmbatch.service.queue_client import QueueClient

_FETCH_KINDS: Mapping[str, RequestKind | FailureKind] = {
    "forbidden": "forbidden",
    "too_large": "too_large",
    "timeout": "not_fetched",
    "unreachable": "not_fetched",
    "bad_status": "not_fetched",
}
FETCH_S = 20.0
"""How long the download of an image may take."""


@dataclass(slots=True, kw_only=True)
class Service:
    """What a request needs. `working` are the requests in progress, one asyncio task each."""

    config: RunConfig
    log: ServiceLog
    metrics: ServiceMetrics
    admission: Admission
    models: Models
    fetcher: UrlFetcher
    bugs: Bugs
    traces: "TraceExport | None"
    room: BodyRoom
    _queue: "QueueClient | None" = None
    working: set["asyncio.Future[None]"] = field(default_factory=set)
    metrics_port: int | None = None
    """The port that serves /metrics without a key, once it is open."""

    @staticmethod
    def of(request: Request) -> "Service":
        """The service that has received this request."""
        service: Service = request.app.state.service
        return service

    async def queue_facts(self) -> QueueFacts | None:
        """The facts about the job queue now; None without a queue."""
        return None if self._queue is None else await self._queue.facts()

    @property
    def queue(self) -> "QueueClient":
        """The job queue; raises a Problem if the service has none."""
        if self._queue is None:
            raise Problem(
                "no_queue",
                "the service has no job queue; start Redis with redis-server, and start the service with "
                "--queue redis://127.0.0.1:6379",
            )
        return self._queue

    async def fetched(self, url: str, place: str) -> bytes:
        """The image at this URL; `place` names the field for messages.

        Raises:
            Problem: its host is not allowed, or it cannot be fetched.
        """
        try:
            return await self.fetcher.fetch(url)
        except FetchError as error:
            raise Problem(_FETCH_KINDS[error.status], f"{place}: {error}") from error

    async def picture_at(self, url: str, place: str) -> bytes:
        """The image in a data URL, or fetched from an allowed host; `place` names the field for messages.

        Raises:
            Problem: it is no image, or it cannot be fetched.
        """
        if url.startswith("data:"):
            return decoded(url, place)
        if url.lower().startswith(("http:", "https:")):
            return checked(await self.fetched(url, place), place)
        raise Problem("bad_request", f"{place} is not a data URL; write data:image/jpeg;base64,...")

    def is_metrics_port(self, port: int | None) -> bool:
        """Whether a request at this port of the service wants metrics alone."""
        return port is not None and port == self.metrics_port

    @contextmanager
    def traced(self, call: Call, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[None]:
        """Make the span of a request, if there are traces."""
        if self.traces is None:
            yield
            return
        with self.traces.tracing.request(call.method, headers) as span:
            try:
                yield
            finally:
                span.ended(route_of(scope), call.status, call.kind)

    def stop(self) -> None:
        """Let no further request in; those in progress go on."""
        self.admission.stopping = True

    def abort(self) -> None:
        """End all requests in progress: their clients learn that the service stops."""
        for task in self.working:
            task.cancel()


@asynccontextmanager
async def opened(config: RunConfig, log: ServiceLog) -> AsyncIterator[Service]:
    """The service at work inside the ``async with``.

    Raises:
        VlmbatchError: the options are wrong, or an endpoint refuses them.
    """
    options, metrics, notices = config.service, ServiceMetrics(), Notices()

    traces = await asyncio.to_thread(_open_traces, config, log)

    def notify(event: Event) -> None:
        metrics(event)
        if traces is not None:
            traces(event)
        if isinstance(event, EndpointResumed):
            log.say(f"{event.endpoint} is up again after {duration(event.paused_s)}")
        for notice in notices.of(event):
            log.say(notice)

    file = None if options.keys_file is None else Path(options.keys_file)
    keys = await asyncio.to_thread(lambda: KeyRing(file, options.service_key, tell=log.say))
    rates = RateLimits(options.rate, options.rate_storage, tell=log.say)
    async with AsyncExitStack() as stack:
        if traces is not None:
            stack.push_async_callback(asyncio.to_thread, traces.end, 0, None)
        stack.push_async_callback(rates.aclose)
        fetcher = UrlFetcher(options.allow_url_host, config.input.max_bytes, FETCH_S)
        await stack.enter_async_context(fetcher)
        queue = await _open_queue(config, log, stack)
        models = await stack.enter_async_context(Models.opened(config, notify))
        service = Service(
            config=config,
            log=log,
            metrics=metrics,
            admission=Admission(options, keys, rates),
            models=models,
            fetcher=fetcher,
            bugs=Bugs(notify),
            traces=traces,
            room=BodyRoom(BODIES * options.max_body),
            _queue=queue,
        )
        if queue is not None:
            from vlmbatch.service.batch_api.reconciler import kept  # an extra

            await stack.enter_async_context(kept(service, queue))
        yield service


async def _open_queue(config: RunConfig, log: ServiceLog, stack: AsyncExitStack) -> "QueueClient | None":
    """The job queue, if --queue is set. While it is away, the service starts without it.

    Raises:
        ConfigError: its options are wrong.
    """
    if config.jobs.queue is None:
        return None
    from vlmbatch.service.queue_client import QueueClient  # an extra

    queue = QueueClient(config.jobs, hides_reasons=config.service.has_keys, tell=log.say)
    stack.push_async_callback(queue.aclose)
    try:
        await queue.opened()
    except (QueueAwayError, QueueFullError, StoreAwayError) as error:
        log.say(f"{error}; until then, requests for jobs get the status 503")
    return queue


def _open_traces(config: RunConfig, log: ServiceLog) -> "TraceExport | None":
    """The export of traces, if --traces is set; blocks."""
    if not config.display.traces:
        return None
    from vlmbatch.observers.trace_export import TraceExport  # an extra

    return TraceExport(log.say)
