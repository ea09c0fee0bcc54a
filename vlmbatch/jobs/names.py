"""The names of RQ and of vlmbatch in Redis. RQ's own tools show the jobs, since they have RQ's form."""

from datetime import UTC, datetime

from rq.job import Job
from rq.queue import Queue
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.utils import utcformat

QUEUES = Queue.redis_queues_keys
JOB = Job.key_for("")
RESULTS: str = Result.get_key("")  # type: ignore[no-untyped-call]
FINISHED = FinishedJobRegistry.key_template.format("")


def job_key(job_id: str) -> str:
    """The hash of a job."""
    return f"{JOB}{job_id}"


def results_key(job_id: str) -> str:
    """The stream with the result of a job."""
    return f"{RESULTS}{job_id}"


def queue_key(queue: str) -> str:
    """The list of the jobs that wait in this queue."""
    return f"{Queue.redis_queue_namespace_prefix}{queue}"


def started_key(queue: str) -> str:
    """The registry of the jobs that workers have, with the time at which their leases end."""
    return StartedJobRegistry.key_template.format(queue)


def finished_key(queue: str) -> str:
    """The registry of the jobs with a result."""
    return f"{FINISHED}{queue}"


def failed_key(queue: str) -> str:
    """The registry of the jobs that no worker can read."""
    return FailedJobRegistry.key_template.format(queue)


def cancelled_key(queue: str) -> str:
    """The registry of cancelled jobs."""
    return CanceledJobRegistry.key_template.format(queue)


def batch_key(batch: str) -> str:
    """The hash of a batch."""
    return f"vlmbatch:batch:{batch}"


def open_key(batch: str) -> str:
    """The set of the jobs of a batch without a result."""
    return f"vlmbatch:batch:{batch}:open"


def done_key(batch: str) -> str:
    """The list of the jobs of a batch with a result, in the order in which they finished."""
    return f"vlmbatch:batch:{batch}:done"


def question_key(digest: str) -> str:
    """The options of a question."""
    return f"vlmbatch:question:{digest}"


def now_text() -> str:
    """The time in the form that RQ writes."""
    return utcformat(datetime.now(UTC))


def plain(text: bytes | str) -> str:
    """A text from Redis. Bytes that are not UTF-8 stay as they are, and Connection sends them back so."""
    return text if isinstance(text, str) else text.decode(errors="surrogateescape")
