"""Normal replies and refusals of Ollama and of OpenAI-compatible servers (vLLM, llama.cpp)."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from endpoint.messages import Received, Reply

CREATED = "2026-01-01T00:00:00Z"
CONTEXT_TOKENS = 8192
CANARY = "What colour fills this picture?"
"""The first words of a canary."""
BLIND = "I don't see an image. You mentioned [img-0]"
UNDECODABLE = "Failed to load image or audio file"
NO_MMPROJ = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
UNEXPECTED_EOF = "an error was encountered while running the model: unexpected EOF"
NO_VISION = "Multimodal data provided, but model does not support multimodal requests."
KINDS = {
    401: "authentication_error",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    500: "InternalServerError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
}
"""vLLM's error types by status; any other status has BadRequestError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the endpoint; its `digest` is made from its name if none is given.

    `on_gpu` is the share of it in GPU memory, None if it is not loaded; `remote` is the host of a cloud
    model; `older` means that only /api/show, not the list, has its capabilities and context length.
    """

    vision: bool = True
    thinking: bool = False
    digest: str = ""
    family: str = "tiny"
    bytes: int = 100_415_961
    parameters: str = "135M"
    quantization: str = "Q4_K_M"
    on_gpu: float | None = 1.0
    remote: str = ""
    older: bool = False


class Refusal(Exception):
    """The real server refuses this request with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def as_json(status: int, value: object, **headers: str) -> Reply:
    return Reply(status=status, body=json.dumps(value).encode(), headers=headers)


def error(wire: str, status: int, message: str, kind: str = "") -> Reply:
    """An error in the wire's own shape."""
    if wire == "ollama":
        return as_json(status, {"error": message})
    kind = kind or KINDS.get(status, "BadRequestError")
    told = {"message": message, "type": kind, "param": None, "code": status}
    return as_json(status, {"error": told})


def nested(wire: str, status: int, message: str) -> Reply:
    """An error of llama-server that Ollama forwards: JSON inside its error string."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    inner = {"error": {"code": status, "message": message, "type": kind}}
    return error(wire, status, json.dumps(inner))


def chat(
    request: Received,
    text: str | None,
    reason: str | None = "stop",
    *,
    thinking: str | None = None,
    refusal: str | None = None,
) -> Reply:
    """An answer; without a `reason` Ollama's answer is not done."""
    if request.wire == "ollama":
        return as_json(200, ollama_chat(request, text or "", reason, thinking))
    message = {"role": "assistant", "content": text, "refusal": refusal, "reasoning": thinking}
    payload = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": request.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
    }
    counts = usage(request, text or "")
    return as_json(200, {**payload, "usage": counts} if counts else payload)


def usage(request: Received, text: str) -> dict[str, int]:
    """OpenAI's counts of an answer; empty if they are not reported."""
    if request.tokens is None:
        return {}
    said = _tokens_of(request, text)
    return {
        "prompt_tokens": request.tokens,
        "completion_tokens": said,
        "total_tokens": request.tokens + said,
    }


def _tokens_of(request: Received, text: str) -> int:
    """A token a word, and one for the end."""
    return request.written or len(text.split()) + 1


def max_tokens(request: Received) -> int:
    """The limit of an answer that the request names."""
    options = request.body.get("options") or {}
    return int(request.body.get("max_tokens") or options.get("num_predict") or 10**9)


def ollama_chat(
    request: Received, text: str, reason: str | None, thinking: str | None = None
) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    if thinking is not None:
        message["thinking"] = thinking
    payload: dict[str, Any] = {"model": request.model, "created_at": CREATED, "message": message}
    if reason is None:
        return {**payload, "done": False}
    payload |= {"done": True, "done_reason": reason}
    payload |= {"total_duration": 2_000_000 + request.load_ns, "load_duration": request.load_ns}
    if request.tokens:  # Ollama leaves out counts that are 0
        payload |= {"prompt_eval_count": request.tokens, "eval_count": _tokens_of(request, text)}
    if request.busy_ns:
        payload["eval_duration"] = request.busy_ns
    return payload


def find(models: dict[str, Model], name: str) -> Model | None:
    """The model with this name, with or without the tag that Ollama adds."""
    return models.get(name) or models.get(name.removesuffix(":latest"))


def find_at_ollama(models: dict[str, Model], name: str) -> Model | None:
    """The model that Ollama finds: it ignores the case, and the place of its own library in a name."""
    short = name.lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return find({known.lower(): model for known, model in models.items()}, short)


def digest(name: str, model: Model) -> str:
    return model.digest or hashlib.sha256(name.encode()).hexdigest()


def tags(models: dict[str, Model]) -> Reply:
    """The reply of /api/tags."""
    return as_json(200, {"models": [_listed(name, model) for name, model in models.items()]})


def loaded(models: dict[str, Model], context: int) -> Reply:
    """The reply of /api/ps."""
    running = []
    for name, model in models.items():
        if model.on_gpu is not None:
            entry = {**_listed(name, model), "expires_at": CREATED, "context_length": context}
            running.append({**entry, "size_vram": int(model.bytes * model.on_gpu)})
    return as_json(200, {"models": running})


def _listed(name: str, model: Model) -> dict[str, Any]:
    full = name if ":" in name else f"{name}:latest"
    told = {
        "name": full,
        "model": full,
        "modified_at": CREATED,
        "size": model.bytes,
        "digest": digest(name, model),
        "details": details(model),
    }
    if model.remote:
        told["remote_host"] = model.remote
    return told if model.older else {**told, "capabilities": capabilities(model)}


def details(model: Model) -> dict[str, Any]:
    told = {
        "format": "gguf",
        "family": model.family,
        "parameter_size": model.parameters,
        "quantization_level": model.quantization,
    }
    return told if model.older else {**told, "context_length": CONTEXT_TOKENS}


def capabilities(model: Model) -> list[str]:
    optional = {"vision": model.vision, "thinking": model.thinking}
    return ["completion", *(word for word, has in optional.items() if has)]


def show(models: dict[str, Model], request: Received) -> Reply:
    body = request.body if isinstance(request.body, dict) else {}
    name = str(body.get("model") or body.get("name") or "")
    model = find_at_ollama(models, name)
    if model is None:
        return error("ollama", 404, f"model '{name}' not found")
    return as_json(
        200,
        {
            "modelfile": f"FROM {name}",
            "details": details(model),
            "model_info": {"general.architecture": "tiny", "tiny.context_length": CONTEXT_TOKENS},
            "capabilities": capabilities(model),
            "modified_at": CREATED,
        },
    )


def model_list(models: dict[str, Model], owned_by: str, context: int) -> Reply:
    """The reply of /v1/models; only llama.cpp's has the modalities of a model."""
    data: list[dict[str, Any]] = []
    for name, model in models.items():
        entry = {"id": name, "object": "model", "created": 1, "owned_by": owned_by}
        sees = ["text", "image"] if model.vision else ["text"]
        llama: dict[str, Any] = {
            "architecture": {"input_modalities": sees},
            "meta": {"n_ctx": context},
        }
        extra: dict[str, Any] = {"vllm": {"max_model_len": context}, "llamacpp": llama}.get(owned_by, {})
        data.append({**entry, **extra})
    return as_json(200, {"object": "list", "data": data})


def check(request: Received, models: dict[str, Model], owned_by: str, *, blind: bool = False) -> None:
    """Refuse the same requests as the real server: unknown model, picture for a model without vision.

    A `blind` server silently drops the pictures instead.

    Raises:
        Refusal: with the recorded reply of that server.
    """
    model = (find_at_ollama if request.wire == "ollama" else find)(models, request.model)
    if model is None and owned_by == "llamacpp" and request.wire == "openai":
        model = next(iter(models.values()))  # llama.cpp's server has one model and ignores the name
    if model is None:
        if request.wire == "ollama":
            raise Refusal(error("ollama", 404, f"model '{request.model}' not found"))
        words = f"The model `{request.model}` does not exist. Valid aliases: {', '.join(models)}."
        raise Refusal(error("openai", 404, words))
    if request.pictures and not model.vision and not blind:
        raise Refusal(_no_vision(request, owned_by))
    if request.wire == "ollama" and request.body.get("think") and not model.thinking:
        raise Refusal(error("ollama", 400, f'"{request.model}" does not support thinking'))
    if request.wire == "openai" and request.headers.get("content-type", "") != "application/json":
        words = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(error("openai", 400, words, "Bad Request"))


def _no_vision(request: Received, owned_by: str) -> Reply:
    if request.wire == "ollama":
        return nested("ollama", 400, NO_VISION)
    if owned_by == "llamacpp":
        return error("openai", 500, NO_MMPROJ, "server_error")
    return error("openai", 400, f"{request.model} is not a multimodal model")


def check_arguments(request: Received, refuses: frozenset[str]) -> None:
    """Refuse arguments that the model or the server does not accept, in OpenAI's words.

    Raises:
        Refusal: the request has such an argument.
    """
    for name in sorted(refuses & request.body.keys()):
        words = f"Unsupported parameter: '{name}' is not supported with this model."
        if name == "max_tokens":
            words += " Use 'max_completion_tokens' instead."
        told = {"message": words, "type": "invalid_request_error", "param": name}
        raise Refusal(as_json(400, {"error": {**told, "code": "unsupported_parameter"}}))


def metrics(running: int, waiting: int) -> Reply:
    """The part of vLLM's metrics about its queue."""
    labels = '{engine="0",model_name="tiny-vision"}'
    lines = (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{labels} {running}.0",
        "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.",
        "# TYPE vllm:num_requests_waiting gauge",
        f"vllm:num_requests_waiting{labels} {waiting}.0",
        f'vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} {waiting}.0',
    )
    kind = "text/plain; version=1.0.0; charset=utf-8"
    return Reply(status=200, body="\n".join((*lines, "")).encode(), content_type=kind)


def no_messages(request: Received) -> Reply:
    """The reply to a question without messages: for Ollama it means to load or unload the model."""
    if request.wire == "openai":
        words = "Cannot apply chat template to an empty conversation. Provide at least one message."
        return error("openai", 400, words)
    unloads = request.body.get("keep_alive") == 0
    return chat(request, "", "unload" if unloads else "load")
