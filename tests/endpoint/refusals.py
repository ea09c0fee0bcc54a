"""Errors in the exact words of servers, by the name of the mode that sends them.

The argument of most is the number of a wording, from 1, or a status: `load_failed:3`, `processor:500`.
"""

import json
from collections.abc import Callable

from endpoint.hosted import AZURE_FILTER, MODERATION, NO_CREDITS, NO_QUOTA, WRONG_KEYS, Replies
from endpoint.messages import Received, Reply
from endpoint.wires import NO_MMPROJ, UNDECODABLE, UNEXPECTED_EOF, as_json, error, nested

CONTEXT_WORDINGS = (
    "This model's maximum context length is 8192 tokens. However, you requested 512 output tokens and your "
    "prompt contains at least 8000 input tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 8192 "
    "tokens and your request has 8000 input tokens (512 > 8192 - 8000).",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "The prompt (total length 9000) is too long to fit into the model (context length 8192).",
    "You passed 8000 input tokens and requested 512 output tokens. However, the model's context length is "
    "only 8192 tokens.",
    "Input length (9000) exceeds model's maximum context length (8192).",
    "This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 input "
    "tokens, which exceeds this limit even without any output tokens.",
    "max_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens.",
    # Ollama's own; it also forwards the one of llama-server
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length",
    "prompt too long; exceeded max context length by 437 tokens",
)
LONG_PROMPT = {
    "error": {
        "code": 400,
        "message": "request (20010 tokens) exceeds the available context size (2048 tokens), "
        "try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 20010,
        "n_ctx": 2048,
    }
}


def hosted(replies: Replies) -> Callable[[Received, str], Reply]:
    """One of these replies of hosted servers, by its number from 1."""
    return lambda request, argument: as_json(*replies[int(argument or 1) - 1])


def told(status: int, *wordings: str, kind: str = "") -> Callable[[Received, str], Reply]:
    """An error in one of these wordings, in the wire's own shape."""

    def reply(request: Received, argument: str) -> Reply:
        number = int(argument or 1)
        words = wordings[0 if number >= 100 else number - 1].replace("{model}", request.model)
        return error(request.wire, number if number >= 100 else status, words, kind)

    return reply


def fixed(reply: Reply) -> Callable[[Received, str], Reply]:
    return lambda request, argument: reply


def context(request: Received, argument: str) -> Reply:
    """One of vLLM's eight wordings (1 to 8) or Ollama's (9, 10, and the one forwarded from llama-server)."""
    if request.wire == "openai" or argument:
        return error(request.wire, 400, CONTEXT_WORDINGS[int(argument or 6) - 1])
    return error("ollama", 400, json.dumps(LONG_PROMPT))


def unknown_model(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return error("ollama", 404, f"model '{request.model}' not found")
    return error("openai", 404, f"The model `{request.model}` does not exist.")


def unknown_route(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return Reply(status=404, body=b"404 page not found", content_type="text/plain")
    return as_json(404, {"detail": "Not Found"})


def wrong_method(request: Received, argument: str) -> Reply:
    if request.wire == "ollama":
        return Reply(status=405, body=b"405 method not allowed", content_type="text/plain")
    return as_json(405, {"detail": "Method Not Allowed"})


def old_vllm(request: Received, argument: str) -> Reply:
    words = f"The model `{request.model}` does not exist."
    return as_json(
        404, {"object": "error", "message": words, "type": "NotFoundError", "param": None, "code": 404}
    )


def bad_schema(request: Received, argument: str) -> Reply:
    words = (
        "Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n"
        'Unrecognized schema: {"type":"nonsense"}'
    )
    return nested(request.wire, 400, words)


REFUSALS: dict[str, Callable[[Received, str], Reply]] = {
    # the set-up
    "404-model": unknown_model,
    "404-pull": told(404, 'model "{model}" not found, try pulling it first'),
    "404-route": unknown_route,
    "405": wrong_method,
    "old_vllm_error_shape": old_vllm,
    "not_multimodal": told(400, "{model} is not a multimodal model"),
    "no_mmproj": told(500, NO_MMPROJ, kind="server_error"),
    "one_image": told(400, "this model only supports one image while more than one image requested"),
    "too_many_images": told(
        400,
        "At most 1 image(s) may be provided in one request.",
        "At most 1 image(s) may be provided in one prompt. (parameter=image)",
        "You set image=2 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 3 image items in the "
        "same prompt.",
    ),
    "bad_format": told(500, r'invalid format: "\"yaml\""; expected "json" or a valid JSON Schema object'),
    "bad_option": told(500, 'option "num_ctx" must be of type integer'),
    "bad_schema": bad_schema,
    "bad_keep_alive": told(400, 'time: invalid duration "xyz"'),
    "bad_url": told(
        400,
        "Invalid url format: xyz",
        "url must be base64 encoded",
        "file:// URLs are not allowed unless --media-path is specified",
        "uri must be base64 encoded",
        kind="invalid_request_error",
    ),
    "cloud_401": fixed(
        as_json(401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect?name=here&key=c3No"})
    ),
    "cloud_403": told(403, "ollama cloud is disabled: remote model is unavailable"),
    "cloud_502": told(502, 'Post "https://ollama.com:443/api/chat": EOF'),
    "402": told(402, "Insufficient credits. Add more to go on."),
    "insufficient_quota": fixed(as_json(429, NO_QUOTA)),
    "wrong_key": hosted(WRONG_KEYS),
    "no_credits": hosted(NO_CREDITS),
    # this picture or this question
    "context": context,
    "context_in_200": fixed(as_json(200, LONG_PROMPT)),
    "input_filter": fixed(as_json(400, AZURE_FILTER)),
    "moderation": hosted(MODERATION),
    "400-image": lambda request, argument: nested(request.wire, 400, UNDECODABLE),
    "nested_json_error": lambda request, argument: nested(request.wire, 400, UNDECODABLE),
    "undecodable": told(400, UNDECODABLE, kind="invalid_request_error"),
    "unknown_format": told(
        500, "Failed to create new sequence: failed to process inputs: image: unknown format"
    ),
    "cannot_identify": told(
        400,
        "Failed to load image: cannot identify image file <_io.BytesIO object>",
        "Failed to load image: image file is truncated (105 bytes not processed)",
        "Non-base64 digit found",
    ),
    "processor": told(
        400,
        "Failed to apply Qwen2_5_VLProcessor on data={'images': [<PIL.Image.Image image mode=RGB "
        "size=332x27>]} with kwargs={'do_normalize': False, 'do_rescale': False, 'return_tensors': 'pt'}",
    ),
    "bomb": told(
        500,
        "Image size (400000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS "
        "attack.",
    ),
    "file_missing": told(500, "[Errno 2] No such file or directory: '/srv/pictures/cat.png'"),
    "url_refused": told(
        500,
        "Cannot connect to host 127.0.0.1:9 ssl:default [Connect call failed ('127.0.0.1', 9)]",
    ),
    "url_404": told(
        422,
        "Failed to fetch media from URL: HTTP 404 error (parameter=image_url, value=http://127.0.0.1/nope.png)",
    ),
    "not_base64": told(501, "Only base64 data URLs are supported for now."),
    # the engine
    "unexpected_eof": told(500, UNEXPECTED_EOF),
    "load_failed": told(
        500,
        "llama runner process no longer running: -1",
        "llama-server process has terminated: signal: illegal instruction",
        "timed out waiting for llama-server to start",
        "llama-server reported out-of-memory during startup: cudaMalloc failed: out of memory",
        "no slots available after 10 retries",
        "unexpected server status: 1",
    ),
    "chunk_not_found": lambda request, argument: nested(request.wire, 500, "got exception: Chunk not found"),
}
