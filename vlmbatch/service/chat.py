"""OpenAI's form of the service: /v1/chat/completions and /v1/models, for clients that exist."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from vlmbatch.service.answers import answered, json_reply, note
from vlmbatch.service.call import Call
from vlmbatch.service.chat_fields import ChatBody, ChatReply, Conversation, ModelList, OpenAIFailed
from vlmbatch.service.completions import completion_of, finish_of, head_of, usage_of
from vlmbatch.service.openapi import bodies, failures, server_events
from vlmbatch.service.problems import Problem
from vlmbatch.service.reading import json_body
from vlmbatch.service.service import Service

router = APIRouter(prefix="/v1", tags=["OpenAI's form"])

DESCRIPTION = "With stream: a chat.completion.chunk in JSON. The last event is [DONE]."
PIECE = 40
"""A streamed answer comes in pieces of this many characters."""


@router.get("/models", response_model=ModelList, responses=failures(OpenAIFailed))
async def models(request: Request) -> Response:
    """The models that requests may name."""
    service, call = Service.of(request), Call.of(request.scope)
    names = service.models.names(call.key)
    return json_reply({"object": "list", "data": [_model(name) for name in names]})


@router.post(
    "/chat/completions",
    response_model=ChatReply,
    responses={
        200: server_events(DESCRIPTION),
        **failures(OpenAIFailed),
    },
    openapi_extra=bodies(json=ChatBody),
)
async def chat(request: Request) -> Response:
    """Ask about the images in a message. A streamed answer begins once the whole answer is accepted."""
    service, call = Service.of(request), Call.of(request.scope)
    body = await json_body(request, ChatBody)
    body.refuse_unsupported()
    said = Conversation.of(body)
    call.prompt = said.prompt or ""
    served = service.models.named(body.model, call.key)
    pictures = [await _picture(request, url, number) for number, url in enumerate(said.urls)]
    question = await served.question(body.asked(said), call.scope)
    result = await answered(served, pictures, question, call.request_id, call)
    note(result, call)
    if result.failure is not None:
        raise Problem(result.failure.kind, result.failure.message)
    record = result.to_record()
    if body.stream:
        chunks = _chunks(record, call.request_id, with_usage=body.wants_usage)
        return StreamingResponse(chunks, media_type="text/event-stream")
    return json_reply(completion_of(record, call.request_id))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vlmbatch"}


async def _picture(request: Request, url: str, number: int) -> bytes:
    """The image at this position of the message."""
    data = await Service.of(request).picture_at(url, f"image_url {number + 1}")
    Call.of(request.scope).image_bytes.append(len(data))
    return data


async def _chunks(record: Mapping[str, Any], request_id: str, *, with_usage: bool) -> AsyncIterator[bytes]:
    """The events of a streamed answer, which is known already."""
    head = head_of(record, request_id, "chat.completion.chunk")
    text: str = record["response"]
    yield _event(head, {"role": "assistant", "content": ""})
    for start in range(0, len(text), PIECE):
        yield _event(head, {"content": text[start : start + PIECE]})
    yield _event(head, {}, finish_of(record))
    if with_usage:
        yield _sse({**head, "choices": [], "usage": usage_of(record)})
    yield b"data: [DONE]\n\n"


def _event(head: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    return _sse(
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}
    )


def _sse(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode("ascii") + b"\n\n"
