"""The routes of the job queue: a request gets the id of its job, and asks for the result later."""

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import Response

from vlmbatch.errors import QueueFullError
from vlmbatch.jobs.job import COPIES, ImageJob, JobImage, JobStatus, job_id_of
from vlmbatch.jobs.questions import digest_of
from vlmbatch.service.answers import json_reply
from vlmbatch.service.call import Call
from vlmbatch.service.fields import LONGEST_WAIT_S, JobBody, JobFields, JobReply, JobSent, Wait
from vlmbatch.service.openapi import bodies, failures
from vlmbatch.service.problems import Problem
from vlmbatch.service.reading import Upload, decoded_upload, form_body, is_form, json_body, url_fields
from vlmbatch.service.service import Service

if TYPE_CHECKING:
    from vlmbatch.jobs.job_queue import FoundJob
    from vlmbatch.jobs.opening import Jobs

router = APIRouter(tags=["jobs"])

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0
"""The first and the longest pause, in seconds, between two looks at a job that a request waits for."""
OPEN: tuple[JobStatus, ...] = ("pending", "started")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A name that the client gives the job: the same name again gives the same job.",
    "schema": {"type": "string", "pattern": f"^{_KEY.pattern}$"},
}
_JOB_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The job_id of the job.",
    "schema": {"type": "string", "pattern": f"^{_ID.pattern}$"},
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "Wait up to so many seconds for the end of the job.",
    "schema": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_S, "default": 0},
}


@router.post(
    "/analyze/async",
    status_code=202,
    response_model=JobSent,
    responses={200: {"model": JobSent, "description": "The job has ended before."}, **failures()},
    openapi_extra=bodies(json=JobBody, form=JobFields, headers=(_IDEMPOTENCY_KEY,)),
)
async def send(request: Request) -> Response:
    """Put a question about an image into the job queue. The reply has the id of the job."""
    service, call = Service.of(request), Call.of(request.scope)
    queue, name = service.queue, _idempotency_key(request)
    fields, picture = await _questions(request)
    call.prompt, call.model = fields.prompt or "", fields.model or ""
    served = service.models.named(fields.model, call.key)
    options = await served.options(fields.asked(), call.scope)
    is_bound = call.key is not None and bool(call.key.models)
    job_id = uuid4().hex if name is None else job_id_of("http", call.scope, name)
    day = datetime.now(UTC).date().isoformat()
    job = ImageJob(
        id=job_id,
        image_id=picture.name,
        # two requests with one Idempotency-Key must not replace each other's image
        images=(JobImage(key=f"{COPIES}{day}/{job_id}/{uuid4().int}"),),
        question=digest_of(options),
        keep_s=int(service.config.jobs.result_ttl),
        scope=call.scope,
        priority=fields.priority or "normal",
        model=fields.model or (served.name if is_bound else "") or "",
    )
    status = await queue.call(lambda jobs: _put(jobs, job, options, picture.data))
    told = {"job_id": job_id, "status": status, "request_id": call.request_id}
    return json_reply(told, 202 if status in OPEN else 200, {"Location": f"/job/{job_id}"})


@router.get(
    "/job/{id}", response_model=JobReply, responses=failures(), openapi_extra={"parameters": [_JOB_ID, _WAIT]}
)
async def look(request: Request) -> Response:
    """The status of a job, and its result. With `wait`, the reply comes once the job has ended."""
    service, call = Service.of(request), Call.of(request.scope)
    queue, job_id = service.queue, _job_id(request)
    end = time.monotonic() + min(url_fields(request, Wait).wait, call.left_s)
    pause_s = FIRST_PAUSE_S
    while True:
        found = await queue.call(lambda jobs: _own(jobs, job_id, call.scope))
        left_s = end - time.monotonic()
        if found.status not in OPEN or left_s <= 0 or service.admission.stopping:
            break
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
    if found.record is not None:
        _note(found.record, call)
    return json_reply({**_told(found), "request_id": call.request_id})


@router.delete(
    "/job/{id}", response_model=JobSent, responses=failures(), openapi_extra={"parameters": [_JOB_ID]}
)
async def cancel(request: Request) -> Response:
    """Cancel a job. If it has ended, remove its result. The image is removed, too."""
    service, call = Service.of(request), Call.of(request.scope)
    job_id = _job_id(request)
    status = await service.queue.call(lambda jobs: _end(jobs, job_id, call.scope))
    return json_reply({"job_id": job_id, "status": status, "request_id": call.request_id})


async def _questions(request: Request) -> tuple[JobFields, Upload]:
    """The fields and the image of the body."""
    if is_form(request):
        fields, (picture,) = await form_body(request, JobFields)
        return fields, picture
    body = await json_body(request, JobBody)
    return body, decoded_upload(request, body.image_base64)


def _idempotency_key(request: Request) -> str | None:
    name = request.headers.get("idempotency-key")
    if name is not None and not _KEY.fullmatch(name):
        raise Problem(
            "bad_option", "the header Idempotency-Key must have 1 to 255 printable ASCII characters"
        )
    return name


def _job_id(request: Request) -> str:
    """The id in the URL; raises a Problem if no job can have it."""
    job_id: str = request.path_params["id"]
    if not _ID.fullmatch(job_id):
        raise _not_found()
    return job_id


def _not_found() -> Problem:
    return Problem(
        "not_found", "this job does not exist, its result has expired, or it belongs to another API key"
    )


def _put(jobs: "Jobs", job: ImageJob, options: Mapping[str, Any], data: bytes) -> JobStatus:
    """Put a job into the queue, unless its id is known; returns the status of the job with this id. Blocks.

    The image is stored first, so that each job in the queue has one.
    """
    found = jobs.queue.find(job.id)
    if found is not None:
        return found.status
    (key,) = job.copies
    jobs.store.put(key, data)
    try:
        jobs.queue.keep_question(job.question, options)
        if jobs.queue.add([job]):
            return "pending"
    except QueueFullError:
        jobs.store.delete(key)
        raise
    jobs.store.delete(key)  # another request with the same name came first
    found = jobs.queue.find(job.id)
    return "pending" if found is None else found.status


def _own(jobs: "Jobs", job_id: str, scope: str) -> "FoundJob":
    """The job with this id; raises a Problem if the client has no such job. Blocks.

    Jobs of batches are not shown: a batch may have the name of an API key.
    """
    found = jobs.queue.find(job_id)
    if found is None or found.job is None or found.job.batch or found.job.scope != scope:
        raise _not_found()
    return found


def _end(jobs: "Jobs", job_id: str, scope: str) -> JobStatus:
    """Cancel a job, or remove it if it has ended; returns its status then. Blocks."""
    job = _own(jobs, job_id, scope).job
    assert job is not None, "as _own() promises"
    jobs.queue.cancel(job)
    status = _own(jobs, job_id, scope).status
    for key in job.copies:
        jobs.store.delete(key)
    jobs.queue.remove(job)
    return status


def _told(found: "FoundJob") -> dict[str, Any]:
    """A job as clients see it: with all fields of its record."""
    if found.record is not None:
        record = {name: value for name, value in found.record.items() if name != "status"}
        return {
            "job_id": found.id,
            "status": found.status,
            "result": record.get("response"),
            "error": None,
            **record,
        }
    error = None
    if found.status == "failed":
        error = {
            "kind": "internal",
            "message": "the result of this job is lost; send the image again",
            "retryable": True,
        }
    return {"job_id": found.id, "status": found.status, "result": None, "error": error}


def _note(record: Mapping[str, Any], call: Call) -> None:
    """Tell the log about the result of a job."""
    call.model, text = str(record.get("model", "")), record.get("response")
    if isinstance(text, str):
        call.answer_chars = len(text)
