"""A small context: requests that do not fit are refused, and answers that fill it are cut."""

import json
from typing import Any

from endpoint.messages import Received, Reply
from endpoint.wires import Refusal, chat, error, max_tokens


def answer_within(request: Received, text: str, context: int) -> Reply:
    """The answer, cut by the token limit of the request or by a context of this many tokens.

    Raises:
        Refusal: the prompt alone does not fit; in the words of vLLM or of Ollama.
    """
    tokens = request.tokens or 0
    if tokens >= context:
        raise Refusal(refusal(request.wire, tokens, context))
    words = text.split()
    most = min(max_tokens(request), context - tokens)
    if len(words) < most:
        return chat(request, text)
    return chat(request, " ".join(words[: most - 1]), "length")


def refusal(wire: str, tokens: int, context: int) -> Reply:
    """The reply to a prompt of too many tokens."""
    if wire == "openai":
        return error(
            wire, 400, f"Input length ({tokens}) exceeds model's maximum context length ({context})."
        )
    told: dict[str, Any] = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size ({context} tokens), "
        "try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
    return error(wire, 400, json.dumps({"error": told}))
