"""What Ollama and OpenAI-compatible servers (vLLM, llama.cpp) say when they are well, and how they refuse."""

import base64
import binascii
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

from endpoint_http import Picture, Received, Reply
from PIL import Image, UnidentifiedImageError

CREATED = "2026-01-01T00:00:00Z"
CONTEXT_TOKENS = 8192
UNDECODABLE = "Failed to load image or audio file"
NO_MMPROJ = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
NO_VISION = "Multimodal data provided, but model does not support multimodal requests."


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that the endpoint has; `digest` is made from its name where none is given."""

    vision: bool = True
    thinking: bool = False
    digest: str = ""


class Refusal(Exception):
    """The request is not one that the real server takes; `reply` is what it says then."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def as_json(status: int, value: object, **headers: str) -> Reply:
    return Reply(status=status, body=json.dumps(value).encode(), headers=headers)


def error(wire: str, status: int, message: str, kind: str = "BadRequestError") -> Reply:
    """An error in the wire's own shape."""
    if wire == "ollama":
        return as_json(status, {"error": message})
    told = {"message": message, "type": kind, "param": None, "code": status}
    return as_json(status, {"error": told})


def nested(wire: str, status: int, message: str) -> Reply:
    """An error of llama-server that Ollama passes on: JSON inside its error string."""
    inner = {"error": {"code": status, "message": message, "type": "invalid_request_error"}}
    return error(wire, status, json.dumps(inner))


def chat(
    wire: str, model: str, text: str | None, reason: str | None = "stop", *, thinking: str | None = None
) -> Reply:
    """An answer; without a `reason` Ollama's is not done."""
    if wire == "ollama":
        return as_json(200, ollama_chat(model, text or "", reason, thinking))
    message = {"role": "assistant", "content": text, "refusal": None, "reasoning": thinking}
    payload = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48},
    }
    return as_json(200, payload)


def ollama_chat(model: str, text: str, reason: str | None, thinking: str | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    if thinking is not None:
        message["thinking"] = thinking
    payload: dict[str, Any] = {"model": model, "created_at": CREATED, "message": message}
    if reason is None:
        return {**payload, "done": False}
    counts = {"prompt_eval_count": 40, "eval_count": 8, "total_duration": 2_000_000, "load_duration": 1000}
    return {**payload, "done": True, "done_reason": reason, **counts}


def find(models: dict[str, Model], name: str) -> Model | None:
    """The model of this name, with or without the tag that Ollama adds."""
    return models.get(name) or models.get(name.removesuffix(":latest"))


def digest(name: str, model: Model) -> str:
    return model.digest or hashlib.sha256(name.encode()).hexdigest()


def tags(models: dict[str, Model]) -> Reply:
    """What /api/tags and /api/ps list."""
    listed = [
        {
            "name": name if ":" in name else f"{name}:latest",
            "model": name if ":" in name else f"{name}:latest",
            "modified_at": CREATED,
            "expires_at": CREATED,
            "size": 100_415_961,
            "size_vram": 100_415_961,
            "digest": digest(name, model),
            "details": {"format": "gguf", "family": "tiny", "families": ["tiny"], "parameter_size": "135M"},
            "context_length": CONTEXT_TOKENS,
            "capabilities": capabilities(model),
        }
        for name, model in models.items()
    ]
    return as_json(200, {"models": listed})


def capabilities(model: Model) -> list[str]:
    optional = {"vision": model.vision, "thinking": model.thinking}
    return ["completion", *(word for word, has in optional.items() if has)]


def show(models: dict[str, Model], request: Received) -> Reply:
    body = request.body if isinstance(request.body, dict) else {}
    name = str(body.get("model") or body.get("name") or "")
    model = find(models, name)
    if model is None:
        return error("ollama", 404, f"model '{name}' not found")
    return as_json(
        200,
        {
            "modelfile": f"FROM {name}",
            "details": {"format": "gguf", "family": "tiny", "families": ["tiny"]},
            "model_info": {"general.architecture": "tiny", "tiny.context_length": CONTEXT_TOKENS},
            "capabilities": capabilities(model),
            "modified_at": CREATED,
        },
    )


def model_list(models: dict[str, Model], owned_by: str) -> Reply:
    """What /v1/models lists; llama.cpp alone tells there who can see."""
    data: list[dict[str, Any]] = []
    for name, model in models.items():
        entry = {"id": name, "object": "model", "created": 1, "owned_by": owned_by}
        sees = ["text", "image"] if model.vision else ["text"]
        llama: dict[str, Any] = {
            "architecture": {"input_modalities": sees},
            "meta": {"n_ctx": CONTEXT_TOKENS},
        }
        extra: dict[str, Any] = {"vllm": {"max_model_len": CONTEXT_TOKENS}, "llamacpp": llama}.get(
            owned_by, {}
        )
        data.append({**entry, **extra})
    return as_json(200, {"object": "list", "data": data})


def encoded_pictures(wire: str, body: object) -> list[str]:
    """The base64 texts in a question.

    Raises:
        Refusal: a picture in the other wire's form, or a body that is no question.
    """
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise Refusal(error(wire, 400, "1 validation error:\n  messages: Field required"))
    if wire == "ollama":
        return [text for message in messages for text in message.get("images") or ()]
    found = []
    for message in messages:
        parts = message.get("content")
        urls = [p["image_url"]["url"] for p in parts if "image_url" in p] if isinstance(parts, list) else []
        for url in urls:
            start, comma, text = url.partition(";base64,")
            if not comma or not start.startswith("data:image/"):
                raise Refusal(error(wire, 400, "The URL must be either a HTTP, data or file URL."))
            found.append(text)
    return found


def picture(wire: str, text: str) -> Picture:
    """Decode one picture.

    Raises:
        Refusal: not base64, or not a picture.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        words = "illegal base64 data at input byte 4" if wire == "ollama" else "Non-base64 digit found"
        raise Refusal(error(wire, 400, words)) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except UnidentifiedImageError:
        if wire == "ollama":
            raise Refusal(nested(wire, 400, UNDECODABLE)) from None
        words = "Failed to load image: cannot identify image file <_io.BytesIO object>"
        raise Refusal(error(wire, 400, words)) from None
    return Picture(data=data, sha256=hashlib.sha256(data).hexdigest(), width=width, height=height)


def check(request: Received, models: dict[str, Model], owned_by: str) -> None:
    """Refuse what the real server refuses: an unknown model, a picture for a model without vision.

    Raises:
        Refusal: with the reply recorded of that server.
    """
    model = find(models, request.model)
    if model is None and owned_by == "llamacpp" and request.wire == "openai":
        model = next(iter(models.values()))  # its server has one model and ignores the name
    if model is None:
        if request.wire == "ollama":
            raise Refusal(error("ollama", 404, f"model '{request.model}' not found"))
        words = f"The model `{request.model}` does not exist. Valid aliases: {', '.join(models)}."
        raise Refusal(error("openai", 404, words, "NotFoundError"))
    if request.pictures and not model.vision:
        raise Refusal(_blind(request, owned_by))
    if request.wire == "ollama" and request.body.get("think") and not model.thinking:
        raise Refusal(error("ollama", 400, f'"{request.model}" does not support thinking'))
    if request.wire == "openai" and request.headers.get("content-type", "") != "application/json":
        words = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(error("openai", 400, words, "Bad Request"))


def _blind(request: Received, owned_by: str) -> Reply:
    if request.wire == "ollama":
        return nested("ollama", 400, NO_VISION)
    if owned_by == "llamacpp":
        return error("openai", 500, NO_MMPROJ, "server_error")
    return error("openai", 400, f"{request.model} is not a multimodal model")


def no_messages(request: Received) -> Reply:
    """Ollama takes a question without messages for the wish to load the model, or to unload it."""
    if request.wire == "openai":
        words = "Cannot apply chat template to an empty conversation. Provide at least one message."
        return error("openai", 400, words)
    unloads = request.body.get("keep_alive") == 0
    return chat("ollama", request.model, "", "unload" if unloads else "load")


def describe(request: Received) -> str:
    """The answer that is given unless another is asked for: what arrived."""
    return "; ".join(map(str, request.pictures)) or "no picture"


def stream(request: Received, text: str) -> Reply:
    """Ollama streams unless told not to, which a client that forgets shall notice."""
    if request.wire == "openai":
        return error("openai", 400, "this endpoint does not stream")
    lines = [ollama_chat(request.model, text, None), ollama_chat(request.model, "", "stop")]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return Reply(status=200, body=body, content_type="application/x-ndjson")


def has_messages(request: Received) -> bool:
    return bool(isinstance(request.body, dict) and request.body.get("messages"))
