"""Chat completions of OpenAI's form, made from records."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vlmbatch.finish_reasons import is_cut


def completion_of(record: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """The record of an answer as a chat completion, which has the record as `vlmbatch`."""
    message = {"role": "assistant", "content": record["response"], "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish_of(record), "logprobs": None}
    return {
        **head_of(record, request_id, "chat.completion"),
        "choices": [choice],
        "usage": usage_of(record),
        "vlmbatch": record,
    }


def head_of(record: Mapping[str, Any], request_id: str, kind: str) -> dict[str, Any]:
    """The first fields of a chat completion, or of a piece of one; `kind` is its `object`."""
    return {
        "id": f"chatcmpl-{request_id}",
        "object": kind,
        "created": int(datetime.fromisoformat(record["started_at"]).timestamp()),
        "model": record["model"],
    }


def finish_of(record: Mapping[str, Any]) -> str:
    """Why the answer ended, in OpenAI's words."""
    return "length" if is_cut(record["finish_reason"]) else "stop"


def usage_of(record: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of the answer."""
    read, written = record["usage"]["input_tokens"], record["usage"]["output_tokens"]
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
