"""The frozen values that flow from source to writer."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from vlmbatch.errors import FailureKind
from vlmbatch.images import ImageFacts, PreparedImage

DEFAULT_PROMPT_NAME = "default"
"""The name in a record of the prompt that all images share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What shapes one answer. `max_tokens` and `num_ctx` are in tokens; None leaves it to the engine.

    `thinking` False turns it off where the engine would think by default. `schema` is the JSON Schema that
    the answer has to fit, as text; `logprobs` asks how sure the model was of each token, and of so many
    alternatives.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    num_ctx: int | None = None
    thinking: bool | None = None
    schema: str | None = None
    logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model about one or more pictures, or about none.

    `accept` names flaws that an answer may have: `length` (cut by max_tokens), `loop`, `empty`.
    `deadline_s` is how long one attempt may take in seconds; None leaves it to the backend.
    """

    images: tuple[PreparedImage, ...]
    prompt: str
    system: str | None = None
    generation: Generation = field(default_factory=Generation)
    accept: frozenset[str] = frozenset()
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens read and written; 0 where the endpoint does not tell."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A model's usable answer.

    `thinking` is the length in characters of what it thought, not the text; `load_s` how many seconds
    the engine loaded the model for it, 0 where it does not tell; `warnings` what a person should know;
    `cost` is in US dollars, None where nobody knows; `busy_s` how many seconds the engine itself worked, 0
    where it does not tell; `data` the answer parsed, where a schema was given; `logprobs` as the record has
    them (docs/records.md).
    """

    text: str
    model: str
    finish_reason: str
    usage: Usage = field(default_factory=Usage)
    thinking: int = 0
    load_s: float = 0.0
    warnings: tuple[str, ...] = ()
    cost: float | None = None
    busy_s: float = 0.0
    data: Any = None
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an image has no answer. `retryable` means that the next run asks again by itself."""

    kind: FailureKind
    message: str
    retryable: bool = False
    partial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Who answers, as preflight found it. `url` holds no user, password or query.

    `digest` names the exact weights where the endpoint tells; `slots` is how many requests it works
    on at once where it tells; `context` is the model's context length in tokens; `architecture` what kind
    of model it is, as the endpoint calls that.
    """

    backend: str
    url: str
    model: str
    digest: str | None = None
    slots: int | None = None
    context: int | None = None
    architecture: str | None = None
    notes: tuple[str, ...] = ()


FallbackReason = Literal["unavailable", "rejected", "bad-answer"]
"""Why a fallback is asked: the words of --fallback-on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Why somebody else answered than who was to be asked first, and who that was.

    `kind` and `message` say what went wrong there, as those of a Failure do.
    """

    reason: FallbackReason
    kind: FailureKind
    message: str
    backend: str
    endpoint: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many requests a server works on, and how many wait there, whoever sent them."""

    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of the same question about the same content before.

    `id` is the image that it was about, None where that is none of the same output; `endpoint` answered
    then, and where that was a fallback, `fallback` says why.
    """

    id: str | None
    outcome: Completion | Failure
    image: ImageFacts
    more_images: tuple[ImageFacts, ...] = ()
    endpoint: Endpoint | None = None
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome for one image: a completion or a failure, never both, never neither.

    A session may ask about several images at once; `more_images` are then the facts of all but the first.
    `duplicate_of` is the image of the same content whose answer this is; `cached` says that it is one of
    an earlier run, out of --cache. Neither was asked about. `endpoint` is who answered or failed last, and
    `fallback` says why that is not who was to be asked first. `cost` is that of all attempts in US dollars,
    None where nobody knows.
    """

    id: str
    endpoint: Endpoint
    run: str
    started_at: datetime
    duration_s: float
    completion: Completion | None = None
    failure: Failure | None = None
    image: ImageFacts = field(default_factory=ImageFacts)
    more_images: tuple[ImageFacts, ...] = ()
    prompt: str = DEFAULT_PROMPT_NAME
    attempts: int = 0
    warnings: tuple[str, ...] = ()
    duplicate_of: str | None = None
    cached: bool = False
    fallback: Fallback | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if (self.completion is None) == (self.failure is None):
            raise ValueError("a result is either a completion or a failure")

    @property
    def ok(self) -> bool:
        """Whether the model answered."""
        return self.completion is not None

    @property
    def content(self) -> str | None:
        """The digest of what was asked about, see `content_of`; None if an image was not read."""
        digests = [facts.sha256 for facts in (self.image, *self.more_images)]
        return None if None in digests else content_of(map(str, digests))

    @property
    def is_known(self) -> bool:
        """Whether it was answered before, and so not asked about."""
        return self.cached or self.duplicate_of is not None

    def to_record(self) -> dict[str, Any]:
        """The record of docs/records.md, version 1, as a JSON-ready mapping."""
        done, failed = self.completion, self.failure
        record = {
            "v": 1,
            "id": self.id,
            "status": "ok" if done else "error",
            "prompt": self.prompt,
            "response": done.text if done else None,
            "data": done.data if done else None,
            "error": _flat(failed) if failed else None,
            "model": done.model if done else self.endpoint.model,
            "backend": self.endpoint.backend,
            "endpoint": self.endpoint.url,
            "finish_reason": done.finish_reason if done else None,
            "usage": _flat(done.usage) if done else None,
            "image": _flat(self.image),
            "warnings": list(self.warnings),
            "attempts": self.attempts,
            "started_at": self.started_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "duration_s": round(self.duration_s, 3),
            "run": self.run,
        }
        if self.more_images:
            record["images"] = [_flat(facts) for facts in (self.image, *self.more_images)]
        if self.duplicate_of is not None:
            record["duplicate_of"] = self.duplicate_of
        if self.cached:
            record["cached"] = True
        if done is not None and done.logprobs is not None:
            record["logprobs"] = done.logprobs
        if self.cost is not None:
            record["cost"] = self.cost
        if self.fallback is not None:
            record["fallback"] = _flat(self.fallback)
        return record


def content_of(sha256s: Iterable[str]) -> str:
    """One digest for the contents of one or more files: that of a single file is its own SHA-256."""
    first, *more = sha256s
    return hashlib.sha256("".join((first, *more)).encode()).hexdigest() if more else first


def _flat(value: Failure | Usage | ImageFacts | Fallback) -> dict[str, Any]:
    """Its fields by name; dataclasses.asdict takes ten times as long, since it also copies what they hold."""
    return {name: getattr(value, name) for name in value.__slots__}


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def to_line(record: Mapping[str, Any]) -> bytes:
    """One JSONL line: ASCII only, so that any file name survives and no reader splits it elsewhere."""
    return _ENCODER.encode(record).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSummary:
    """What one endpoint did in a run; `answered` and `failed` are images, not attempts."""

    backend: str
    url: str
    model: str
    answered: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended. `failed` are failures of this run; `failed_before` stand from earlier ones.

    `skipped` were done before; `unreadable` are folders and files that could not be looked into;
    `ignored` are entries that are no images. Of those that succeeded, `duplicates` have the answer of another
    image of the same content, and `cached` one out of --cache; `fallbacks` were answered by a fallback.
    `endpoints` has each that was named, and nothing where that is one alone. `cost` is in US dollars, and
    that of all questions, also of those that no record tells of; None where nobody knows.
    """

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    failed_before: int = 0
    unreadable: int = 0
    ignored: int = 0
    duplicates: int = 0
    cached: int = 0
    fallbacks: int = 0
    usage: Usage = field(default_factory=Usage)
    duration_s: float = 0.0
    stopped: bool = False
    endpoints: tuple[EndpointSummary, ...] = ()
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model of one endpoint; what the endpoint does not tell is None.

    `bytes` is its size on disk; `parameters` and `quantization` are in the endpoint's own words (`8.3B`,
    `Q4_K_M`); `context` and `loaded_context` are in tokens, the second as it is loaded now; `on_gpu` is the
    part of what is loaded that lies in GPU memory, 0 to 1; `elsewhere` is the host that really answers,
    where the endpoint only passes questions on.
    """

    name: str
    backend: str
    endpoint: str
    bytes: int | None = None
    parameters: str | None = None
    quantization: str | None = None
    context: int | None = None
    sees: bool | None = None
    loaded: bool | None = None
    on_gpu: float | None = None
    loaded_context: int | None = None
    elsewhere: str | None = None
