"""Makes a job of each line of an input file. Doing it twice adds nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vlmbatch.jobs.job import ImageJob, JobImage
from vlmbatch.jobs.questions import digest_of
from vlmbatch.service.batch_api.batch_index import MOST_ERRORS, BatchIndex, Plan, StoredBatch
from vlmbatch.service.batch_api.file_index import FILE_S, FileIndex, new_file_id, temporary_file
from vlmbatch.service.batch_api.input_lines import InputLine, InputLines, LineRequest
from vlmbatch.service.batch_api.plan import PlannedLine, image_keys, line_job_id
from vlmbatch.service.keys import ApiKey
from vlmbatch.service.models import Asked, ServedModel
from vlmbatch.service.problems import Problem

if TYPE_CHECKING:
    from vlmbatch.jobs.opening import Jobs
    from vlmbatch.service.queue_client import QueueClient
    from vlmbatch.service.service import Service

RESULT_S = 30 * 24 * 3600
"""How long Redis keeps the result of a job, until the batch has ended."""
PLAN_S = 2 * FILE_S
CHUNK_LINES = 50
CHUNK_BYTES = 8_000_000
"""About this many lines, and bytes of lines, are in memory at once."""
LATER = frozenset(("queue_away", "queue_full"))
"""Problems that are not those of the line: the service tries again."""
MOST_QUESTIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job with its images, and the options of its question."""

    job: ImageJob
    pictures: Sequence[bytes]
    options: Mapping[str, Any]


class Expansion:
    """Makes the jobs of one batch from its input file."""

    def __init__(self, service: "Service", queue: "QueueClient", batch: StoredBatch) -> None:
        """`batch` has no plan yet."""
        self._service = service
        self._queue = queue
        self._batch = batch
        self._key = ApiKey(name=batch.scope, sha256="", models=batch.models) if batch.scope else None
        self._questions: dict[Asked, tuple[str, Mapping[str, Any]]] = {}
        self._errors: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Put all jobs into the queue, and store the plan; or end the batch if it has no good line.

        Raises:
            Problem: the queue or the store is away; try again later.
            ImageError: the input file is gone.
        """
        batch = self._batch
        source = await self._queue.call(lambda jobs: FileIndex(jobs).open(batch.input_file_id))
        total = wrong = 0
        with source, temporary_file() as written:
            lines = InputLines(source, self._service.config.service.max_body)
            while chunk := await self._queue.call(lambda jobs: lines.next(CHUNK_LINES, CHUNK_BYTES)):
                planned = await self._planned(chunk)
                await asyncio.to_thread(written.writelines, [each.as_line() for each in planned])
                total += len(planned)
                wrong += sum(each.kind != "" for each in planned)
            written.seek(0)
            if total == wrong:
                errors = self._errors or [_error(None, "empty_file", "the file has no line")]
                await self._queue.call(lambda jobs: BatchIndex(jobs).fail(batch.id, errors))
                return
            plan = Plan(file_id=new_file_id(), total=total, wrong=wrong)
            await self._queue.call(lambda jobs: FileIndex(jobs).write(plan.file_id, written, PLAN_S))
        await self._queue.call(lambda jobs: _keep_plan(jobs, batch.id, plan))

    async def _planned(self, lines: Sequence[InputLine]) -> list[PlannedLine]:
        """These lines in the plan; their jobs are in the queue then."""
        ids = [line_job_id(self._batch.id, line.number) for line in lines]
        known, is_cancelled = await self._queue.call(lambda jobs: self._known(jobs, ids))
        planned, new = [], []
        for line, job_id in zip(lines, ids, strict=True):
            images = 0
            try:
                request = _request_of(line)
                if job_id not in known and not is_cancelled:
                    new.append(await self._job(line, request, job_id))
                if job_id in known or not is_cancelled:
                    images = len(request.urls)
            except Problem as problem:
                if problem.kind in LATER:
                    raise
                planned.append(PlannedLine.wrong(line.number, line.custom_id, problem))
                self._note(line.number, problem)
            else:
                planned.append(PlannedLine(number=line.number, custom_id=line.custom_id, images=images))
        if new:
            await self._queue.call(lambda jobs: _add(jobs, new))
        return planned

    def _known(self, jobs: "Jobs", ids: Sequence[str]) -> tuple[set[str], bool]:
        """Which of these jobs exist, and whether the batch is cancelled."""
        found = {each.id for each in jobs.queue.find_all(ids) if each is not None}
        return found, BatchIndex(jobs).is_cancelled(self._batch.id)

    async def _job(self, line: InputLine, request: LineRequest, job_id: str) -> NewJob:
        """The job of a line; raises a Problem if it cannot be asked."""
        batch = self._batch
        served = self._service.models.named(request.model, self._key)
        digest, options = await self._question(served, request.asked)
        pictures = [
            await self._service.picture_at(url, f"image_url {number}")
            for number, url in enumerate(request.urls, 1)
        ]
        keys = image_keys(day_of(batch), job_id, len(pictures))
        job = ImageJob(
            id=job_id,
            image_id=line.custom_id or "",
            images=tuple(JobImage(key=key) for key in keys),
            question=digest,
            keep_s=RESULT_S,
            scope=batch.scope,
            batch=batch.id,
            model=request.model or (served.name if batch.models else "") or "",
        )
        return NewJob(job=job, pictures=pictures, options=options)

    async def _question(self, served: ServedModel, asked: Asked) -> tuple[str, Mapping[str, Any]]:
        """The digest and the options of a question; raises a Problem if it cannot be asked."""
        found = self._questions.get(asked)
        if found is None:
            options = await served.options(asked, self._batch.scope)
            found = digest_of(options), options
            if len(self._questions) >= MOST_QUESTIONS:
                self._questions.clear()
            self._questions[asked] = found
        return found

    def _note(self, number: int, problem: Problem) -> None:
        if len(self._errors) < MOST_ERRORS:
            self._errors.append(_error(number, problem.kind, problem.message))


def day_of(batch: StoredBatch) -> str:
    """The day of the images of this batch in the store."""
    return datetime.fromtimestamp(batch.created_at, UTC).date().isoformat()


def _request_of(line: InputLine) -> LineRequest:
    if line.problem is not None:
        raise line.problem
    assert line.request is not None, "a line has one of both"
    return line.request


def _error(line: int | None, code: str, message: str) -> dict[str, Any]:
    """An error of a batch in OpenAI's form."""
    return {"code": code, "line": line, "message": message, "param": None}


def _add(jobs: "Jobs", new: Sequence[NewJob]) -> None:
    """Put these jobs into the queue, after their images and questions."""
    for each in new:
        for image, data in zip(each.job.images, each.pictures, strict=True):
            jobs.store.put(image.key, data)
    for digest, options in {each.job.question: each.options for each in new}.items():
        jobs.queue.keep_question(digest, options)
    jobs.queue.add(each.job for each in new)


def _keep_plan(jobs: "Jobs", batch_id: str, plan: Plan) -> None:
    """Store the plan: the batch is in progress now."""
    index = BatchIndex(jobs)
    if not index.set_plan(batch_id, plan):
        FileIndex(jobs).discard(plan.file_id)
    index.mark(batch_id, "in_progress")
