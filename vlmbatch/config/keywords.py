"""The options as keywords of Python functions, with the types that each function takes.

They repeat the fields of the option groups for type checkers and editors. A test compares both. `schema` is
not among them (except in RunKeywords), since each function declares it itself.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from vlmbatch.config.answer_class import Schema
from vlmbatch.config.endpoint import BackendName

File = str | os.PathLike[str]
"""A path."""
Texts = str | Sequence[str]
"""One text, or several."""
Json = str | Mapping[str, Any]
"""A JSON object, or its text."""
Auto = Literal["auto"]
"""vlmbatch chooses the value."""


class QuestionKeywords(TypedDict, total=False):
    """The options of a question."""

    prompt: str | None
    prompt_file: File | None
    system: str | None

    max_tokens: int
    temperature: float
    seed: int | None
    num_ctx: int | None
    logprobs: int | None
    accept: str

    max_size: int | Auto | None
    max_pixels: int | str | None
    image_tokens: int | None
    max_pixels_in: int | str
    quality: int


class SessionKeywords(QuestionKeywords, total=False):
    """The options of a session: those of its endpoints, and those that its questions share."""

    model: File | None
    backend: BackendName
    base_url: Texts
    api_key: str | None
    mmproj: File | None
    litellm_config: File | None
    keep_alive: str | None
    canary: bool
    fallback: Texts
    fallback_on: str
    unload: bool
    option: Texts

    header: Texts
    ca_cert: File | None
    client_cert: File | None
    client_key: File | None
    insecure: bool
    extra_body: Json | None
    mm_processor_kwargs: Json | None
    file_urls: bool

    concurrency: int | Auto | None
    rpm: float | None
    timeout: float | str
    retries: int
    give_up_after: float | str | None
    drain: float | str
    decode_memory: int | str | None
    max_bytes: int | str
    dedupe: bool
    cache: File | None
    prices: File | None


class BatchKeywords(SessionKeywords, total=False):
    """The options of a run in Python."""

    include: Texts
    exclude: Texts
    limit: int | None
    allow_empty: bool

    output: File
    retry_failed: bool
    overwrite: bool
    append: bool

    until: str | None
    max_duration: float | str | None
    max_cost: float | None


class ServiceKeywords(SessionKeywords, total=False):
    """The options of the service: those of its sessions, and its own."""

    host: str
    port: int
    keys_file: File | None
    service_key: Texts
    allow_model: Texts
    allow_url_host: Texts
    cors_origin: Texts
    rate: str | None
    rate_storage: str | None
    max_requests: int
    max_body: int | str
    deadline: float | str
    metrics_port: int | None
    trusted_proxy: Texts

    queue: str | None
    store: File | None
    result_ttl: float | str

    quiet: bool
    log_json: bool
    traces: bool


class RunKeywords(BatchKeywords, total=False):
    """All options of a run, with those that only the command uses."""

    schema: Schema | None
    max_failures: float | str
    dry_run: bool
    probe: int | None
    format: Literal["auto", "text", "jsonl"]
    quiet: bool
    verbose: bool
    log_json: bool
    summary: File | None
    metrics_file: File | None
    traces: bool
