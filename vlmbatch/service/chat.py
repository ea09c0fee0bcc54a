"""OpenAI's form of the service: /v1/chat/completions and /v1/models, for clients that exist."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from vlmbatch.finish_reasons import is_cut
from vlmbatch.records import Result
from vlmbatch.service.answers import answered, json_reply, note, status_of
from vlmbatch.service.call import Call
from vlmbatch.service.chat_fields import ChatBody, ChatReply, Conversation, ModelList, OpenAIFailed
from vlmbatch.service.openapi import bodies, failures, server_events
from vlmbatch.service.problems import Problem
from vlmbatch.service.reading import json_body
from vlmbatch.service.service import Service
from vlmbatch.service.uploads import checked, decoded

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
    if body.stream:
        chunks = _chunks(result, call, with_usage=body.wants_usage)
        return StreamingResponse(chunks, media_type="text/event-stream")
    return json_reply(_completion(result, call), status_of(result))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vlmbatch"}


async def _picture(request: Request, url: str, number: int) -> bytes:
    """The image at this position of the message: in a data URL, or fetched from an allowed host."""
    service, call = Service.of(request), Call.of(request.scope)
    place = f"image_url {number + 1}"
    if url.startswith("data:"):
        data = decoded(url, place)
    elif url.lower().startswith(("http:", "https:")):
        data = checked(await service.fetched(url, place), place)
    else:
        raise Problem("bad_request", f"{place} is not a data URL; write data:image/jpeg;base64,...")
    call.image_bytes.append(len(data))
    return data


def _completion(result: Result, call: Call) -> dict[str, Any]:
    """The result as a chat completion, with its record as `vlmbatch`."""
    message = {"role": "assistant", "content": result.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": _finish(result), "logprobs": None}
    return {
        **_head(result, call, "chat.completion"),
        "choices": [choice],
        "usage": _usage(result),
        "vlmbatch": result.to_record(),
    }


async def _chunks(result: Result, call: Call, *, with_usage: bool) -> AsyncIterator[bytes]:
    """The events of a streamed answer, which is known already."""
    head = _head(result, call, "chat.completion.chunk")
    text = result.text or ""
    yield _event(head, {"role": "assistant", "content": ""})
    for start in range(0, len(text), PIECE):
        yield _event(head, {"content": text[start : start + PIECE]})
    yield _event(head, {}, _finish(result))
    if with_usage:
        yield _sse({**head, "choices": [], "usage": _usage(result)})
    yield b"data: [DONE]\n\n"


def _event(head: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    return _sse(
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}
    )


def _sse(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode("ascii") + b"\n\n"


def _head(result: Result, call: Call, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
    }


def _finish(result: Result) -> str:
    is_short = result.completion is not None and is_cut(result.completion.finish_reason)
    return "length" if is_short else "stop"


def _usage(result: Result) -> dict[str, int]:
    usage = result.completion.usage if result.completion is not None else None
    read, written = (0, 0) if usage is None else (usage.input_tokens, usage.output_tokens)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
