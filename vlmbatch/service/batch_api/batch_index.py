"""The batches of clients, as Redis knows them. All calls block.

Each field of a batch is written once. So a batch stays right if a service dies, or if two services
work on it.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from vlmbatch import strict_json
from vlmbatch.service.batch_api.fields import ENDPOINT, Status
from vlmbatch.service.batch_api.file_index import StoredFile
from vlmbatch.service.batch_api.pages import CHUNK, Page, SortedIds, decoded_ids

if TYPE_CHECKING:
    from vlmbatch.jobs.batches import BatchState
    from vlmbatch.jobs.opening import Jobs

ENDED_S = 30 * 24 * 3600
"""How long a batch that has ended is kept."""
MOST_ERRORS = 100
"""A failed batch tells at most this many reasons."""
_UNFINISHED = "vlmbatch:unfinished-batches"
_ENDS: tuple[Status, ...] = ("completed", "cancelled", "failed")
_STAGES: tuple[Status, ...] = (*_ENDS, "cancelling", "finalizing", "in_progress")
"""The states with a time. The state of a batch is the first of these that the batch has reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the input file asks: the file with its plan, and how many lines it has and how many are wrong."""

    file_id: str
    total: int
    wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a batch ended: its files, and the numbers of its requests and tokens."""

    output: StoredFile | None
    errors: StoredFile | None
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, values: Any) -> Self:
        """The outcome with these JSON values."""
        files = {name: values[name] and StoredFile.of(values[name]) for name in ("output", "errors")}
        return cls(**{**values, **files})

    def as_json(self) -> dict[str, Any]:
        """JSON values; of() reads them back."""
        values = {name: getattr(self, name) for name in self.__slots__}
        files = {name: file.as_json() for name, file in values.items() if isinstance(file, StoredFile)}
        return values | files

    @property
    def usage(self) -> dict[str, Any]:
        """The tokens in OpenAI's form."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """A batch of a client. `scope` is the name of its API key, and `models` those that the key may use.

    `times` are the times of its states in seconds since 1970, such as `failed_at`. `jobs` are its jobs while
    it is in progress.
    """

    id: str
    scope: str
    models: tuple[str, ...]
    input_file_id: str
    metadata: Mapping[str, str] | None
    created_at: int
    times: Mapping[str, int] = field(default_factory=dict)
    plan: Plan | None = None
    outcome: Outcome | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    jobs: "BatchState | None" = None

    @property
    def status(self) -> Status:
        """Its state."""
        return next((stage for stage in _STAGES if f"{stage}_at" in self.times), "validating")

    @property
    def is_cancelled(self) -> bool:
        """Whether the client has cancelled it."""
        return "cancelling_at" in self.times

    @property
    def is_answered(self) -> bool:
        """Whether it is in progress, and none of its jobs is without a result."""
        return self.status == "in_progress" and (self.jobs is None or not self.jobs.open)

    @property
    def has_ended(self) -> bool:
        """Whether its state is the last one."""
        return self.status in _ENDS

    @property
    def ended_s(self) -> float:
        """For how many seconds its state has been the last one."""
        return time.time() - self.times[f"{self.status}_at"]

    def as_object(self) -> dict[str, Any]:
        """The object of OpenAI's form."""
        outcome = self.outcome if self.has_ended else None
        names = ("in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled")
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "errors": {"object": "list", "data": list(self.errors)} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": outcome and outcome.output and outcome.output.id,
            "error_file_id": outcome and outcome.errors and outcome.errors.id,
            "created_at": self.created_at,
            **{f"{name}_at": self.times.get(f"{name}_at") for name in names},
            "expires_at": None,
            "expired_at": None,
            "request_counts": self._request_counts(),
            "usage": outcome and outcome.usage,
            "metadata": self.metadata,
        }

    def _request_counts(self) -> dict[str, int]:
        """The numbers of its requests: none before the plan is there."""
        completed = failed = 0
        if self.outcome is not None:
            completed, failed = self.outcome.completed, self.outcome.failed
        elif self.plan is not None and self.jobs is not None:
            completed, failed = self.jobs.succeeded, self.plan.wrong + self.jobs.failed + self.jobs.cancelled
        total = 0 if self.plan is None else self.plan.total
        return {"total": total, "completed": completed, "failed": failed}


def new_batch_id() -> str:
    """The id of a new batch."""
    return f"batch_{uuid.uuid4().hex}"


class BatchIndex:
    """All batches of a queue."""

    def __init__(self, jobs: "Jobs") -> None:
        """`jobs` has the Redis."""
        self._batches = jobs.batches
        self._connection = jobs.queue.connection
        self._redis = jobs.queue.connection.redis

    def add(self, batch: StoredBatch) -> None:
        """Store a new batch."""
        names = ("scope", "models", "input_file_id", "metadata", "created_at")
        values = {name: getattr(batch, name) for name in names}
        self._batches.begin(batch.id)
        with self._connection.errors(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_key(batch.id), "batch", json.dumps(values))
            pipe.zadd(_scope_key(batch.scope), {batch.id: time.time()})
            pipe.zadd(_UNFINISHED, {batch.id: time.time()})
            pipe.execute()

    def find(self, batch_id: str, scope: str) -> StoredBatch | None:
        """The batch with this id, if it belongs to this client."""
        batch = self.load(batch_id)
        return batch if batch is not None and batch.scope == scope else None

    def load(self, batch_id: str) -> StoredBatch | None:
        """The batch with this id."""
        return next(self.load_all([batch_id]))

    def load_all(self, ids: Sequence[str]) -> Iterator[StoredBatch | None]:
        """The batches with these ids."""
        with self._connection.errors(), self._redis.pipeline(transaction=False) as pipe:
            for batch_id in ids:
                pipe.hgetall(_key(batch_id))
            found = pipe.execute()
        for batch_id, fields in zip(ids, found, strict=True):
            yield self._batch(batch_id, {name.decode(): value for name, value in fields.items()})

    def page(self, scope: str, *, after: str | None, limit: int) -> Page[StoredBatch]:
        """A part of the list of the batches of this client; raises a Problem if `after` is not in it."""
        return SortedIds(self._connection, _scope_key(scope)).page(self.load_all, after=after, limit=limit)

    def unfinished(self) -> Iterator[StoredBatch]:
        """All batches that a service must still work on, the first ones first."""
        with self._connection.errors():
            ids = decoded_ids(self._redis.zrange(_UNFINISHED, 0, -1))
        for start in range(0, len(ids), CHUNK):
            for batch in self.load_all(ids[start : start + CHUNK]):
                if batch is not None:
                    yield batch

    def mark(self, batch_id: str, stage: Status) -> None:
        """Store that the batch reaches this state now; a second call changes nothing."""
        self._set_once(batch_id, f"{stage}_at", int(time.time()))

    def is_cancelled(self, batch_id: str) -> bool:
        """Whether the client has cancelled the batch."""
        with self._connection.errors():
            return bool(self._redis.hexists(_key(batch_id), "cancelling_at"))

    def set_plan(self, batch_id: str, plan: Plan) -> bool:
        """Store the plan; False if the batch has one."""
        values = {name: getattr(plan, name) for name in plan.__slots__}
        return self._set_once(batch_id, "plan", json.dumps(values))

    def set_outcome(self, batch_id: str, outcome: Outcome) -> bool:
        """Store how the batch ended; False if that is known already."""
        return self._set_once(batch_id, "outcome", json.dumps(outcome.as_json()))

    def fail(self, batch_id: str, errors: Sequence[Mapping[str, Any]]) -> None:
        """End a batch that cannot be worked on, with the reasons."""
        self._set_once(batch_id, "errors", json.dumps(errors[:MOST_ERRORS]))
        self.mark(batch_id, "failed")

    def end(self, batch: StoredBatch) -> None:
        """No service needs to work on the batch any more. Jobs that wait are cancelled."""
        self._batches.cancel(batch.id)
        self._batches.delete(batch.id)
        with self._connection.errors(), self._redis.pipeline(transaction=True) as pipe:
            pipe.expire(_key(batch.id), ENDED_S)
            pipe.zrem(_UNFINISHED, batch.id)
            pipe.execute()
        self._forget_oldest(batch.scope)

    def _forget_oldest(self, scope: str) -> None:
        """Remove some ids of a client whose batches are no longer kept."""
        with self._connection.errors():
            oldest = decoded_ids(self._redis.zrange(_scope_key(scope), 0, 9))
            gone = [batch_id for batch_id in oldest if not self._redis.exists(_key(batch_id))]
            if gone:
                self._redis.zrem(_scope_key(scope), *gone)

    def _set_once(self, batch_id: str, name: str, value: str | int) -> bool:
        with self._connection.errors():
            return bool(self._redis.hsetnx(_key(batch_id), name, value))

    def _batch(self, batch_id: str, fields: Mapping[str, bytes]) -> StoredBatch | None:
        if "batch" not in fields:
            return None
        values = {name: strict_json.loads(value) for name, value in fields.items()}
        batch = values["batch"]
        has_jobs = "plan" in values and "outcome" not in values
        return StoredBatch(
            id=batch_id,
            scope=batch["scope"],
            models=tuple(batch["models"]),
            input_file_id=batch["input_file_id"],
            metadata=batch["metadata"],
            created_at=batch["created_at"],
            times={name: time for name, time in values.items() if name.endswith("_at")},
            plan=Plan(**values["plan"]) if "plan" in values else None,
            outcome=Outcome.of(values["outcome"]) if "outcome" in values else None,
            errors=values.get("errors", ()),
            jobs=self._batches.state(batch_id) if has_jobs else None,
        )


def _key(batch_id: str) -> str:
    """What Redis knows of a batch."""
    return f"vlmbatch:api-batch:{batch_id}"


def _scope_key(scope: str) -> str:
    """The ids of the batches of a client."""
    return f"vlmbatch:api-batches:{scope}"
