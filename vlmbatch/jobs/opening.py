"""Opens the queue and its store together. All calls block."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vlmbatch.config.job_queue import QueueOptions
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
        try:
            store = Store.open(options.store or default_store())
            if not queue.connection.same_store(store.identity):
                raise ConfigError(
                    f"--store {store.place} is not the store of the queue at {queue.connection.place}; name "
                    "the same folder or URL as the service and the other workers"
                )
        except BaseException:
            queue.close()
            raise
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


def default_store(environ: Mapping[str, str] = os.environ) -> str:
    """The folder of images for this user; raises ConfigError without a home folder."""
    given = environ.get("XDG_DATA_HOME") or environ.get("LOCALAPPDATA")  # LOCALAPPDATA: Windows
    path = Path(given or os.path.expanduser("~/.local/share"))  # noqa: PTH111  # Path raises without a home
    if not path.is_absolute():
        raise ConfigError("there is no home folder for the images of jobs; name a folder with --store")
    return str(path / "vlmbatch" / "store")
