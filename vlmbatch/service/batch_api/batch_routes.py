"""OpenAI's Batch API: /v1/batches."""

import re
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from vlmbatch.service.answers import json_reply
from vlmbatch.service.batch_api.batch_index import BatchIndex, StoredBatch, new_batch_id
from vlmbatch.service.batch_api.fields import USUAL_BATCHES, BatchList, BatchObject, ListFields, NewBatch
from vlmbatch.service.batch_api.file_routes import found_file
from vlmbatch.service.call import Call
from vlmbatch.service.chat_fields import OpenAIFailed
from vlmbatch.service.openapi import bodies, failures, url_parameters
from vlmbatch.service.problems import Problem
from vlmbatch.service.reading import json_body, url_fields
from vlmbatch.service.service import Service

router = APIRouter(prefix="/v1/batches", tags=["OpenAI's form"])

_ID = re.compile(r"batch_[0-9a-f]{32}")


@router.post(
    "",
    response_model=BatchObject,
    responses=failures(OpenAIFailed),
    openapi_extra=bodies(json=NewBatch),
)
async def create(request: Request) -> Response:
    """Put the requests of an input file into the queue."""
    queue, call = Service.of(request).queue, Call.of(request.scope)
    body = await json_body(request, NewBatch)
    source = await found_file(request, body.input_file_id)
    if source.purpose != "batch":
        raise Problem(
            "bad_option",
            "input_file_id is not a file with the purpose batch; upload a file with that purpose",
        )
    batch = StoredBatch(
        id=new_batch_id(),
        scope=call.scope,
        models=() if call.key is None else call.key.models,
        input_file_id=source.id,
        metadata=body.metadata,
        created_at=int(time.time()),
    )
    await queue.call(lambda jobs: BatchIndex(jobs).add(batch))
    queue.batches_changed.set()
    return json_reply(batch.as_object())


@router.get(
    "",
    response_model=BatchList,
    responses=failures(OpenAIFailed),
    openapi_extra=url_parameters(ListFields),
)
async def batches(request: Request) -> Response:
    """The batches of the API key, the new ones first."""
    queue, call = Service.of(request).queue, Call.of(request.scope)
    wanted = url_fields(request, ListFields)
    limit = wanted.limit or USUAL_BATCHES
    page = await queue.call(lambda jobs: BatchIndex(jobs).page(call.scope, after=wanted.after, limit=limit))
    return json_reply(page.as_object(StoredBatch.as_object))


@router.get("/{batch_id}", response_model=BatchObject, responses=failures(OpenAIFailed))
async def batch(request: Request, batch_id: str) -> Response:
    """The state of a batch."""
    found = await _found(request, batch_id)
    if found.is_answered:
        Service.of(request).queue.batches_changed.set()
    return json_reply(found.as_object())


@router.post("/{batch_id}/cancel", response_model=BatchObject, responses=failures(OpenAIFailed))
async def cancel(request: Request, batch_id: str) -> Response:
    """Cancel a batch: requests that wait are cancelled, and requests in progress go on."""
    queue = Service.of(request).queue
    found = await _found(request, batch_id)
    if found.has_ended:
        raise Problem(
            "bad_request", f"this batch has ended with the status {found.status}, and cannot be cancelled"
        )
    await queue.call(lambda jobs: BatchIndex(jobs).mark(batch_id, "cancelling"))
    queue.batches_changed.set()
    return json_reply((await _found(request, batch_id)).as_object())


async def _found(request: Request, batch_id: str) -> StoredBatch:
    """The batch with this id; raises a Problem if there is none, or if it belongs to another API key."""
    queue, call = Service.of(request).queue, Call.of(request.scope)
    found = None
    if _ID.fullmatch(batch_id):
        found = await queue.call(lambda jobs: BatchIndex(jobs).find(batch_id, call.scope))
    if found is None:
        raise Problem(
            "not_found",
            "this batch does not exist, is no longer kept, or belongs to another API key; GET /v1/batches "
            "lists your batches",
        )
    return found
