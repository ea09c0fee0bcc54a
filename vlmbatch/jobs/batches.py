"""Groups of jobs whose results are collected together. All calls block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from vlmbatch import strict_json
from vlmbatch.errors import ConfigError
from vlmbatch.jobs.connection import Connection
from vlmbatch.jobs.job_queue import CHUNK, FoundJob, JobQueue, chunks
from vlmbatch.jobs.names import FINISHED, JOB, RESULTS, batch_key, done_key, open_key, plain

HOLD_S = 60
"""A program loses its role at a batch after this many seconds, unless it calls hold() again."""
_COUNTS = ("total", "succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """A batch now. `ready` jobs have a result that is not collected; `open` ones have none.

    `question` is the digest of the question of all its jobs, and `model` the model that they name; empty if
    each job has its own. `begun` is another text each time that the batch is begun. `run` and `settings` are
    the fingerprint and the settings of its records, None before its first result.
    """

    question: str
    model: str
    begun: str
    total: int
    open: int
    ready: int
    succeeded: int
    failed: int
    cancelled: int
    run: str | None
    settings: Mapping[str, Any] | None
    is_filling: bool

    @property
    def is_done(self) -> bool:
        """Whether all its results are collected, and no program adds jobs."""
        return not (self.open or self.ready or self.is_filling)


class Batches:
    """The batches of a queue."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._connection: Connection = queue.connection

    def begin(self, name: str, question: str = "", **fields: Any) -> str:
        """Make the batch, unless it exists. With a question, all its jobs have that question.

        `fields` are further values of its hash. Returns its `begun`.
        """
        begun = uuid4().hex
        values: dict[Any, Any] = {**fields, "question": question, "begun": begun}
        with self._connection.errors():
            self._connection.redis.hset(batch_key(name), mapping=values)
        return begun

    def state(self, name: str) -> BatchState | None:
        """The batch now; None if there is none."""
        keys = [batch_key(name), open_key(name), done_key(name), _holder_key(name, "fill")]
        with self._connection.errors():
            flat, is_open, ready, filling = self._connection.script("state")(keys=keys, args=[])
        if not flat:
            return None
        fields = dict(zip(map(plain, flat[::2]), flat[1::2], strict=True))
        try:
            counts = {count: int(fields.get(count, 0)) for count in _COUNTS}
            settings = _settings(fields.get("settings"))
            names = ("question", "model", "begun", "run")
            question, model, begun, run = (_text(fields, each) for each in names)
        except ValueError as error:
            raise ConfigError(
                f"vlmbatch cannot read the batch {name} at {self._connection.place}: another program has "
                "changed it; name another batch with --batch"
            ) from error
        return BatchState(
            question=question or "",
            model=model or "",
            begun=begun or "",
            open=is_open,
            ready=ready,
            run=run,
            settings=settings,
            is_filling=bool(filling),
            **counts,
        )

    def names(self) -> list[str]:
        """The names of all batches, sorted; it looks at all keys."""
        start = batch_key("")
        with self._connection.errors():
            keys = map(plain, self._connection.redis.scan_iter(f"{start}*", CHUNK, _type="hash"))
            return sorted({key.removeprefix(start) for key in keys})

    def ready(self, name: str, most: int = CHUNK) -> list[tuple[str, FoundJob | None]]:
        """The ids of the first finished jobs that are not collected, in the order in which they finished.

        None stands for a job that Redis has lost.
        """
        with self._connection.errors():
            ids = list(map(plain, self._connection.redis.lrange(done_key(name), 0, most - 1)))
        return list(zip(ids, self._queue.find_all(ids), strict=True)) if ids else []

    def forget(self, name: str, ids: Sequence[str]) -> None:
        """Remove these jobs, the first ones of ready(): their results are stored elsewhere now."""
        with self._connection.errors():
            self._connection.script("forget")(keys=[done_key(name)], args=[JOB, RESULTS, FINISHED, *ids])

    def open_ids(self, name: str) -> Iterator[str]:
        """The ids of the jobs without a result, in any order."""
        with self._connection.errors():
            for job_id in self._connection.redis.sscan_iter(open_key(name), count=CHUNK):
                yield plain(job_id)

    def drop_lost(self, name: str) -> int:
        """Remove from the open jobs those that Redis has lost, or that no worker can read; returns how many.

        It ends at the first jobs that are all there, so another call may find more.
        """
        number = 0
        for ids in chunks(list(self.open_ids(name))):
            with self._connection.errors():
                lost = self._connection.script("drop_lost")(
                    keys=[batch_key(name), open_key(name)], args=[JOB, *ids]
                )
            if not lost:
                break
            number += lost
        return number

    def cancel(self, name: str) -> int:
        """Cancel the jobs that no worker has; jobs in progress go on. Returns how many were cancelled."""
        number = 0
        for chunk in chunks(list(self.open_ids(name))):
            for found in self._queue.find_all(chunk):
                if found is not None and found.job is not None:
                    before = self._queue.cancel(found.job, lets_started_go_on=True, leaves_list=True)
                    number += before == "queued"
        return number

    def delete(self, name: str) -> None:
        """Remove the batch itself. Its jobs stay until they expire."""
        with self._connection.errors():
            self._connection.redis.delete(batch_key(name), open_key(name), done_key(name))

    def hold(self, name: str, role: str, token: str) -> bool:
        """Say that the program with this token fills or collects the batch, for the next HOLD_S seconds.

        `role` is ``fill`` or ``collect``. False if another program has the role.
        """
        with self._connection.errors():
            held = self._connection.script("hold")(keys=[_holder_key(name, role)], args=[token, HOLD_S])
        return bool(held)

    def free(self, name: str, role: str, token: str) -> None:
        """The program with this token no longer has the role."""
        with self._connection.errors():
            self._connection.script("free")(keys=[_holder_key(name, role)], args=[token])


def _text(fields: Mapping[str, bytes], name: str) -> str | None:
    """A field of a batch; raises ValueError if it is not UTF-8."""
    value = fields.get(name)
    return None if value is None else value.decode()


def _settings(text: bytes | None) -> Mapping[str, Any] | None:
    """The settings of the records; raises ValueError if they are not a JSON object."""
    settings = None if text is None else strict_json.loads(text)
    if settings is not None and not isinstance(settings, dict):
        raise ValueError("not an object")
    return settings


def _holder_key(name: str, role: str) -> str:
    return f"{batch_key(name)}:{role}"
