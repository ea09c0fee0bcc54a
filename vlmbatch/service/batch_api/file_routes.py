"""OpenAI's Files API: /v1/files, for the input and the output of batches."""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from vlmbatch.errors import ImageError
from vlmbatch.service.answers import json_reply
from vlmbatch.service.batch_api.fields import (
    MOST_LISTED_FILES,
    FileDeleted,
    FileList,
    FileListFields,
    FileObject,
    UploadFields,
)
from vlmbatch.service.batch_api.file_index import FileIndex, StoredFile, new_file_id
from vlmbatch.service.batch_api.input_lines import check_input
from vlmbatch.service.call import Call
from vlmbatch.service.chat_fields import OpenAIFailed
from vlmbatch.service.openapi import failures, jsonl_form, url_parameters
from vlmbatch.service.problems import Problem
from vlmbatch.service.reading import form_file, url_fields
from vlmbatch.service.service import Service
from vlmbatch.service.uploads import safe_name

if TYPE_CHECKING:
    from vlmbatch.jobs.opening import Jobs

router = APIRouter(prefix="/v1/files", tags=["OpenAI's form"])

_ID = re.compile(r"file-[0-9a-f]{32}")
_BLOCK = 1 << 20
_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "",
    response_model=FileObject,
    responses=failures(OpenAIFailed),
    openapi_extra=jsonl_form(UploadFields),
)
async def upload(request: Request) -> Response:
    """Upload the input file of a batch."""
    queue, call = Service.of(request).queue, Call.of(request.scope)
    async with form_file(request, UploadFields) as (_, file):
        stored = await queue.call(lambda jobs: _stored(jobs, file, call.scope))
    return json_reply(stored.as_object())


@router.get(
    "",
    response_model=FileList,
    responses=failures(OpenAIFailed),
    openapi_extra=url_parameters(FileListFields),
)
async def files(request: Request) -> Response:
    """The files of the API key."""
    queue, call = Service.of(request).queue, Call.of(request.scope)
    wanted = url_fields(request, FileListFields)
    page = await queue.call(
        lambda jobs: FileIndex(jobs).page(
            call.scope,
            after=wanted.after,
            limit=wanted.limit or MOST_LISTED_FILES,
            newest_first=wanted.order != "asc",
            purpose=wanted.purpose,
        )
    )
    return json_reply(page.as_object(StoredFile.as_object))


@router.get("/{file_id}", response_model=FileObject, responses=failures(OpenAIFailed))
async def file(request: Request, file_id: str) -> Response:
    """The name, size and purpose of a file."""
    return json_reply((await found_file(request, file_id)).as_object())


@router.delete("/{file_id}", response_model=FileDeleted, responses=failures(OpenAIFailed))
async def delete(request: Request, file_id: str) -> Response:
    """Delete a file."""
    stored = await found_file(request, file_id)
    await Service.of(request).queue.call(lambda jobs: FileIndex(jobs).delete(stored))
    return json_reply({"id": stored.id, "object": "file", "deleted": True})


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={200: {"content": _CONTENT}, **failures(OpenAIFailed)},
)
async def content(request: Request, file_id: str) -> Response:
    """The content of a file."""
    stored = await found_file(request, file_id)
    try:
        source = await Service.of(request).queue.call(lambda jobs: FileIndex(jobs).open(stored.id))
    except ImageError as error:
        raise _not_found() from error
    return StreamingResponse(_blocks(source), media_type="application/octet-stream")


async def found_file(request: Request, file_id: str) -> StoredFile:
    """The file with this id.

    Raises:
        Problem: there is none, or it belongs to another API key.
    """
    queue, call = Service.of(request).queue, Call.of(request.scope)
    found = None
    if _ID.fullmatch(file_id):
        found = await queue.call(lambda jobs: FileIndex(jobs).find(file_id, call.scope))
    if found is None:
        raise _not_found()
    return found


def _not_found() -> Problem:
    return Problem(
        "not_found",
        "this file does not exist, has been deleted, or belongs to another API key; GET /v1/files lists your "
        "files",
    )


def _stored(jobs: "Jobs", file: UploadFile, scope: str) -> StoredFile:
    """Store an uploaded file."""
    check_input(file.file)
    index, file_id = FileIndex(jobs), new_file_id()
    stored = StoredFile(
        id=file_id,
        scope=scope,
        filename=safe_name(file.filename, file_id),
        bytes=index.write(file_id, file.file),
        purpose="batch",
        created_at=int(time.time()),
    )
    index.show(stored)
    return stored


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    with source:
        while block := source.read(_BLOCK):
            yield block
