"""The metrics of the job queue for Prometheus."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """The job queue now. `reason` says why it cannot be used; then the other fields mean nothing.

    `jobs` has the number of jobs in each state, and `oldest_s` is how long the first job has waited.
    """

    reason: str | None = None
    jobs: Mapping[str, int] = field(default_factory=dict)
    oldest_s: float = 0.0
    workers: int = 0


class QueueMetrics(Collector):
    """Shows the newest facts; a service without a queue has none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.facts: QueueFacts | None = None
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metrics of the facts."""
        facts = self.facts
        if facts is None:
            return
        yield GaugeMetricFamily(
            "vlm_queue_up", "1 while the job queue can be used.", value=facts.reason is None
        )
        if facts.reason is not None:
            return
        jobs = GaugeMetricFamily("vlm_queue_jobs", "Jobs of the queue by state.", labels=["state"])
        for state, number in facts.jobs.items():
            jobs.add_metric([state], number)
        yield jobs
        yield GaugeMetricFamily(
            "vlm_queue_oldest_seconds", "How long the first job has waited.", value=facts.oldest_s
        )
        yield GaugeMetricFamily("vlm_queue_workers", "Workers that are running.", value=facts.workers)
