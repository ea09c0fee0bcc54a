"""The workers of a queue, in RQ's registry: its own tools show them, too."""

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from redis import Redis
from rq.queue import Queue
from rq.worker import BaseWorker
from rq.worker.base import WorkerStatus

from vlmbatch.jobs.connection import Connection
from vlmbatch.jobs.names import plain

ALIVE_S = 60
"""A worker without a heartbeat for this many seconds is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A running worker. `version` is that of vlmbatch."""

    name: str
    model: str
    version: str


class RegisteredWorker(BaseWorker):
    """RQ's entry of a worker that does several jobs at once. All calls block."""

    def __init__(self, connection: Connection, queues: Sequence[str], model: str) -> None:
        """Not registered yet."""
        self._errors = connection.errors
        self._model = model
        made = [Queue(name, connection=connection.redis, serializer="json") for name in queues]
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        with connection.errors():
            super().__init__(
                made, name=name, connection=connection.redis, worker_ttl=ALIVE_S, serializer="json"
            )

    def _set_connection(self, connection: Redis) -> Redis:
        """Leave the connection as it is: RQ would make its time limits longer."""
        return connection

    def begin(self) -> None:
        """Register the worker."""
        with self._errors():
            self.register_birth()  # type: ignore[no-untyped-call]
            self.connection.hset(self.key, "vlmbatch_model", self._model)
            self.connection.hset(self.key, "vlmbatch_version", metadata.version("vlmbatch"))

    def beat(self, *, in_work: int) -> None:
        """Send a heartbeat: the worker still runs, and has this many jobs."""
        with self._errors():
            if not self.connection.exists(self.key):  # Redis was away, and has lost it
                self.begin()
            self.heartbeat(ALIVE_S)
            self.set_state(WorkerStatus.BUSY if in_work else WorkerStatus.IDLE)

    def end(self) -> None:
        """Remove the worker from the registry."""
        with self._errors():
            self.register_death()  # type: ignore[no-untyped-call]


def workers(connection: Connection) -> list[WorkerInfo]:
    """The workers of vlmbatch that are running."""
    with connection.errors():
        keys = sorted(map(plain, connection.redis.smembers(BaseWorker.redis_workers_keys)))
        with connection.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, "vlmbatch_model", "vlmbatch_version", "death")
            found = pipe.execute()
    start = len(BaseWorker.redis_worker_namespace_prefix)
    return [
        WorkerInfo(name=key[start:], model=plain(model), version=plain(version))
        for key, (model, version, death) in zip(keys, found, strict=True)
        if model is not None and version is not None and death is None
    ]
