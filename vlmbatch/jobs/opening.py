"""Opens the queue and its store together. All calls block."""

import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vlmbatch.config import RunConfig
from vlmbatch.config.job_queue import QueueOptions
from vlmbatch.config.spec import redact_place
from vlmbatch.errors import ConfigError
from vlmbatch.jobs.batches import Batches
from vlmbatch.jobs.job_queue import JobQueue
from vlmbatch.jobs.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The queue, its batches, and the store of its images."""

    queue: JobQueue
    batches: Batches
    store: Store

    @classmethod
    def open(cls, options: QueueOptions) -> Self:
        """The queue and the store of these options.

        Raises:
            ConfigError: there is no --queue, an option is wrong, or the queue has another store.
            QueueAwayError, QueueFullError, StoreAwayError: try again later.
        """
        queue = JobQueue.open(queue_url(options))
        with ExitStack() as stack:
            stack.callback(queue.close)
            store = Store.open(options.store or default_store())
            if not queue.connection.same_store(store.identity):
                raise ConfigError(
                    f"--store {store.place} is not the store of the queue at {queue.connection.place}; name "
                    "the same folder or URL as the service and the other workers"
                )
            stack.pop_all()
        return cls(queue=queue, batches=Batches(queue), store=store)

    def close(self) -> None:
        """Close all connections."""
        self.queue.close()


def queue_url(options: QueueOptions) -> str:
    """The URL of the Redis; raises ConfigError without one."""
    if options.queue is None:
        raise ConfigError(
            "no job queue is named; start Redis with redis-server, and add --queue redis://127.0.0.1:6379"
        )
    return options.queue


def worker_command(config: RunConfig) -> str:
    """The command that starts a worker for the jobs of these options, for messages."""
    options, model = config.jobs, config.endpoint.model
    named = "" if model is None else f" --model {shlex.quote(model)}"
    return f"vlmbatch worker{typed('--queue', options.queue)}{typed('--store', options.store)}{named}"


def typed(flag: str, url: str | None) -> str:
    """The option as it is typed; nothing for a URL with a password, which a variable has."""
    return f" {flag} {shlex.quote(url)}" if url is not None and redact_place(url) == url else ""


def default_store(environ: Mapping[str, str] = os.environ) -> str:
    """The folder of images for this user; raises ConfigError without a home folder."""
    given = environ.get("XDG_DATA_HOME") or environ.get("LOCALAPPDATA")  # LOCALAPPDATA: Windows
    path = Path(given or os.path.expanduser("~/.local/share"))  # noqa: PTH111  # Path raises without a home
    if not path.is_absolute():
        raise ConfigError("there is no home folder for the images of jobs; name a folder with --store")
    return str(path / "vlmbatch" / "store")
