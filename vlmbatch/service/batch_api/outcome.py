"""Writes the output file and the error file of a batch after its last job. Doing it twice is harmless."""

import json
import time
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from vlmbatch.service.batch_api.batch_index import BatchIndex, Outcome, StoredBatch
from vlmbatch.service.batch_api.expansion import day_of
from vlmbatch.service.batch_api.file_index import FileIndex, StoredFile, new_file_id, temporary_file
from vlmbatch.service.batch_api.plan import PlannedLine, image_keys
from vlmbatch.service.completions import completion_of
from vlmbatch.service.problems import Problem, error_body

if TYPE_CHECKING:
    from vlmbatch.jobs.job_queue import FoundJob
    from vlmbatch.jobs.opening import Jobs
    from vlmbatch.service.queue_client import QueueClient

CHUNK = 100
"""This many results are in memory at once."""
_CANCELLED = ("batch_cancelled", "the batch was cancelled before this request began")
_LOST = ("job_lost", "the queue has lost this request; send it again in another batch")


async def write_outcome(queue: "QueueClient", batch: StoredBatch) -> None:
    """Write the files of a batch whose jobs have all ended, and end it.

    Raises:
        Problem: the queue or the store is away; try again later.
        ImageError: the plan is gone.
    """
    if batch.outcome is None:
        if not batch.is_cancelled:
            await queue.call(lambda jobs: BatchIndex(jobs).mark(batch.id, "finalizing"))
        with OutcomeFiles(batch) as files, await queue.call(lambda jobs: _open_plan(jobs, batch)) as plan:
            while await queue.call(lambda jobs: files.write_next(jobs, plan)):
                pass
            await queue.call(files.keep)
    await queue.call(lambda jobs: _show(jobs, batch.id))


async def remove_jobs(queue: "QueueClient", batch: StoredBatch) -> None:
    """Remove what only a batch in progress needs: its jobs with their images, and its plan.

    Raises:
        Problem: the queue or the store is away; try again later.
        ImageError: the plan is gone.
    """
    if batch.plan is not None:
        with await queue.call(lambda jobs: _open_plan(jobs, batch)) as plan:
            while await queue.call(lambda jobs: _delete_images(jobs, batch, plan)):
                pass
    while await queue.call(lambda jobs: _forget_some(jobs, batch)):
        pass
    await queue.call(lambda jobs: _end(jobs, batch))


class OutcomeFiles:
    """The output file and the error file while they are written."""

    def __init__(self, batch: StoredBatch) -> None:
        """The files are on the disk of this machine until keep()."""
        self._batch = batch
        self._output = temporary_file()
        self._errors = temporary_file()
        self._completed = self._failed = self._input_tokens = self._output_tokens = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._output.close()
        self._errors.close()

    def write_next(self, jobs: "Jobs", plan: BinaryIO) -> bool:
        """Write the lines for the next lines of the plan; False at its end."""
        planned = [PlannedLine.of(line) for line in islice(plan, CHUNK)]
        found = jobs.queue.find_all([line.job_id(self._batch.id) for line in planned])
        for line, job in zip(planned, found, strict=True):
            self._write(line, job)
        return bool(planned)

    def keep(self, jobs: "Jobs") -> None:
        """Store both files, unless another service has stored them meanwhile."""
        index = FileIndex(jobs)
        files = [self._stored(index, name) for name in ("output", "error")]
        outcome = Outcome(
            output=files[0],
            errors=files[1],
            completed=self._completed,
            failed=self._failed,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
        )
        if not BatchIndex(jobs).set_outcome(self._batch.id, outcome):
            for file in files:
                if file is not None:
                    index.discard(file.id)

    def _stored(self, index: FileIndex, name: str) -> StoredFile | None:
        """The file with this content in the store; None if it would be empty."""
        content = self._output if name == "output" else self._errors
        if content.tell() == 0:
            return None
        content.seek(0)
        file_id = new_file_id()
        return StoredFile(
            id=file_id,
            scope=self._batch.scope,
            filename=f"{self._batch.id}_{name}.jsonl",
            bytes=index.write(file_id, content),
            purpose="batch_output",
            created_at=int(time.time()),
        )

    def _write(self, line: PlannedLine, job: "FoundJob | None") -> None:
        job_id = line.job_id(self._batch.id)
        head = {"id": f"batch_req_{job_id}", "custom_id": line.custom_id}
        answer = self._answer(line, job, job_id)
        content = json.dumps(head | answer).encode("ascii") + b"\n"
        response = answer["response"]
        if response is not None and response["status_code"] == 200:
            self._completed += 1
            self._output.write(content)
        else:
            self._failed += 1
            self._errors.write(content)

    def _answer(self, line: PlannedLine, job: "FoundJob | None", job_id: str) -> dict[str, Any]:
        """The fields `response` and `error` of a line."""
        problem = line.problem
        record = job.record if job is not None and problem is None else None
        try:
            if record is not None and record["status"] == "ok":
                answer = _response(200, job_id, completion_of(record, job_id))
                self._input_tokens += record["usage"]["input_tokens"]
                self._output_tokens += record["usage"]["output_tokens"]
                return answer
            if record is not None:
                problem = Problem(record["error"]["kind"], record["error"]["message"])
        except (KeyError, TypeError, ValueError):  # another program wrote it
            return _no_response(_LOST)
        if problem is not None:
            return _response(problem.status_code, job_id, error_body(problem, job_id, "/v1/"))
        is_cancelled = self._batch.is_cancelled if job is None else job.status == "cancelled"
        return _no_response(_CANCELLED if is_cancelled else _LOST)


def _response(status: int, request_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"response": {"status_code": status, "request_id": request_id, "body": body}, "error": None}


def _no_response(error: tuple[str, str]) -> dict[str, Any]:
    code, message = error
    return {"response": None, "error": {"code": code, "message": message}}


def _open_plan(jobs: "Jobs", batch: StoredBatch) -> BinaryIO:
    assert batch.plan is not None, "only a batch with a plan has jobs"
    return FileIndex(jobs).open(batch.plan.file_id)


def _end(jobs: "Jobs", batch: StoredBatch) -> None:
    """Remove what only a batch in progress needs."""
    BatchIndex(jobs).end(batch)
    if batch.plan is not None:
        FileIndex(jobs).discard(batch.plan.file_id)


def _show(jobs: "Jobs", batch_id: str) -> None:
    """Let the client see the files, and end the batch."""
    index = BatchIndex(jobs)
    batch = index.load(batch_id)
    if batch is None or batch.outcome is None:
        return
    for file in (batch.outcome.output, batch.outcome.errors):
        if file is not None:
            FileIndex(jobs).show(file)
    index.mark(batch_id, "cancelled" if batch.is_cancelled else "completed")


def _delete_images(jobs: "Jobs", batch: StoredBatch, plan: BinaryIO) -> bool:
    """Delete the images of the next lines of the plan; False at its end."""
    planned = [PlannedLine.of(line) for line in islice(plan, CHUNK)]
    for line in planned:
        for key in image_keys(day_of(batch), line.job_id(batch.id), line.images):
            jobs.store.delete(key)
    return bool(planned)


def _forget_some(jobs: "Jobs", batch: StoredBatch) -> bool:
    """Remove some jobs of the batch from Redis; False if none is left."""
    ids = [job_id for job_id, _ in jobs.batches.ready(batch.id)]
    if ids:
        jobs.batches.forget(batch.id, ids)
    return bool(ids)
