"""The table of servers with the OpenAI API: default URL, environment variables and request format of each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from vlmbatch.backends.openai.request_format import RequestFormat, TokenLimit

TEMPLATE: Mapping[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
"""Turns thinking off for servers that fill in a model's chat template (vLLM, SGLang, llama.cpp)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerType:
    """One type of server.

    `name` is written to records; None means `vllm` if the model is owned by vLLM, else `openai`.
    `url_variable` and `key_variable` are its environment variables: a key is sent only to the server that
    its variable is for. `slots` is the initial number of simultaneous requests. `metrics` says whether
    /metrics may report the queue, None if that is unknown; `hosted` says that images leave this machine and
    a key is required. `reports_cost` says that its usage includes the cost.
    """

    name: str | None
    url: str = ""
    url_variable: str | None = None
    key_variable: str | None = None
    slots: int = 8
    request_format: RequestFormat = RequestFormat(no_thinking=TEMPLATE)
    metrics: bool | None = None
    hosted: bool = False
    reports_cost: bool = False


OPENAI = ServerType(
    name="openai",
    url="https://api.openai.com/v1",
    url_variable="OPENAI_BASE_URL",
    key_variable="OPENAI_API_KEY",
    # max_tokens is deprecated there, and an error for all reasoning models
    request_format=RequestFormat(limit=TokenLimit(name="max_completion_tokens")),
    metrics=False,
    hosted=True,
)
GENERIC = ServerType(name="openai", url_variable="OPENAI_BASE_URL", key_variable="OPENAI_API_KEY")
VLLM = ServerType(
    name="vllm",
    url="http://127.0.0.1:8000/v1",
    url_variable="OPENAI_BASE_URL",
    key_variable="OPENAI_API_KEY",
    slots=16,
    metrics=True,
)
VLLM_OR_OTHER = replace(VLLM, name=None, metrics=None)
EMBEDDED = ServerType(name="llama-cpp", metrics=False)

SERVER_TYPES: Mapping[str, ServerType] = {
    "vllm": VLLM,
    "openai": OPENAI,
    "llama-server": ServerType(name="llama-server", url="http://127.0.0.1:8080/v1", slots=4, metrics=True),
    "lmstudio": ServerType(
        name="lmstudio",
        url="http://127.0.0.1:1234/v1",
        slots=4,
        request_format=RequestFormat(),
        metrics=False,
    ),
    "sglang": ServerType(name="sglang", url="http://127.0.0.1:30000/v1", slots=16, metrics=True),
    "openrouter": ServerType(
        name="openrouter",
        url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        request_format=RequestFormat(
            no_thinking={"reasoning": {"enabled": False}}, arguments={"usage": {"include": True}}
        ),
        metrics=False,
        hosted=True,
        reports_cost=True,
    ),
}
"""By the value of --backend."""


def server_type_at(server_type: ServerType, url: str) -> ServerType:
    """The type of the server at this URL: only OpenAI's own hosts get OpenAI's request format."""
    host = urlsplit(url).hostname or ""
    is_openai = host == "api.openai.com" or host.endswith(".api.openai.com")  # eu.api.openai.com and others
    if server_type.name in ("openai", None) and is_openai:
        return OPENAI
    return GENERIC if server_type is OPENAI else server_type
