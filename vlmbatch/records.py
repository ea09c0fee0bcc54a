"""The frozen values that pass from source to writer."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal

from vlmbatch.errors import FailureKind, ImageFailed
from vlmbatch.images import ImageFacts, PreparedImage

if TYPE_CHECKING:  # type checkers have typing_extensions; it may not be installed
    from typing_extensions import TypeVar

    M = TypeVar("M", covariant=True, default=Any)
else:
    from typing import TypeVar

    M = TypeVar("M", covariant=True)
"""The type of a parsed answer. In ``Result`` without brackets it is any type."""

DEFAULT_PROMPT_NAME = "default"
"""The value of `prompt` in a record for the prompt that all images share."""
LONGEST_REPR = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The generation options of one request. `max_tokens` and `num_ctx` are in tokens; None: engine default.

    `thinking` False turns thinking off if it is the engine's default. `schema` is the text of the JSON Schema
    that the answer must match. `logprobs` requests the log probability of each token, and of this many
    alternatives. `given` has the names of the parameters that the user chose (config.given): they are sent
    although the endpoint has refused them before.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    num_ctx: int | None = None
    thinking: bool | None = None
    schema: str | None = None
    logprobs: int | None = None
    given: frozenset[str] = frozenset()

    def brief(self, max_tokens: int) -> "Generation":
        """These options for an answer of at most `max_tokens`, a number that the user did not choose."""
        return replace(self, max_tokens=max_tokens, given=self.given - {"max_tokens"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to a model, with any number of pictures.

    `accept` names the flaws that an answer may have: `length` (cut by max_tokens), `loop`, `empty`.
    `deadline_s` is the time limit of one attempt in seconds; None: the backend's own timeout.
    """

    images: tuple[PreparedImage, ...]
    prompt: str
    system: str | None = None
    generation: Generation = field(default_factory=Generation)
    accept: frozenset[str] = frozenset()
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Input and output tokens; 0 if the endpoint does not report them."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(Generic[M]):
    """A model's usable answer.

    `thinking` is the number of characters of the model's thinking, not the text. `load_s` is how long the
    engine loaded the model for this request, in seconds. `busy_s` is how long it worked on the request. Both
    are 0 if the engine does not report them. `warnings` are notes for the user. `cost` is in US dollars, None
    if unknown; `owes_cost` says that the endpoint should have reported it, and did not. `data` is the answer
    as JSON if there was a schema. `parsed` is the instance of the pydantic class, or `data` without such
    a class. `logprobs` are in the form of the record (docs/records.md).
    """

    text: str
    model: str
    finish_reason: str
    usage: Usage = field(default_factory=Usage)
    thinking: int = 0
    load_s: float = 0.0
    warnings: tuple[str, ...] = ()
    cost: float | None = None
    owes_cost: bool = False
    busy_s: float = 0.0
    data: Any = None
    parsed: M = None  # type: ignore[assignment]  # it is None without a schema
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an image has no answer. `retryable`: the next run retries the image by itself."""

    kind: FailureKind
    message: str
    retryable: bool = False
    partial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server with its model, as preflight found it. `url` holds no user, password or query.

    `digest` identifies the exact weights. `slots` is the number of requests that the endpoint processes at
    once. `context` is the model's context length in tokens. `architecture` is the kind of model, and
    `version` the version of the engine, both in the endpoint's words. `sees` False: the endpoint reports that
    the model cannot see images; the canary decides then. Each is None if the endpoint does not report it.
    """

    backend: str
    url: str
    model: str
    digest: str | None = None
    slots: int | None = None
    context: int | None = None
    architecture: str | None = None
    version: str | None = None
    sees: bool | None = None
    notes: tuple[str, ...] = ()


FallbackReason = Literal["unavailable", "rejected", "bad-answer"]
"""Why a fallback is used: the values of --fallback-on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Why a fallback answered, and which endpoint was to answer first.

    `kind` and `message` describe the failure of that endpoint, as in a Failure.
    """

    reason: FallbackReason
    kind: FailureKind
    message: str
    backend: str
    endpoint: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many requests a server processes and how many wait there, from all its clients."""

    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The stored outcome of an earlier request with the same content and prompt.

    `id` is the earlier image, None if it is not in the same output. `endpoint` answered it; if that endpoint
    was a fallback, `fallback` says why.
    """

    id: str | None
    outcome: Completion | Failure
    image: ImageFacts
    more_images: tuple[ImageFacts, ...] = ()
    endpoint: Endpoint | None = None
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Generic[M]):
    """The outcome for one image: `ok` with a `completion`, or a `failure`; `to_record()` is its record.

    `text`, `parsed` and `error` give the most used parts directly.

    A session may ask about several images at once; `more_images` are the facts of all but the first.
    `duplicate_of` is the image with the same content whose answer is reused; `cached` means that the answer
    comes from --cache. Both needed no request. `endpoint` answered or failed last, and `fallback` says why it
    was used if it is a fallback. `cost` is the cost of all attempts in US dollars, None if unknown. `reduced`
    means that a picture was smaller than the options say, since a larger one did not fit at the endpoint.
    """

    id: str
    endpoint: Endpoint
    run: str
    started_at: datetime
    duration_s: float
    completion: Completion[M] | None = None
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
    reduced: bool = False

    def __post_init__(self) -> None:
        if (self.completion is None) == (self.failure is None):
            raise ValueError("a result is either a completion or a failure")

    @property
    def ok(self) -> bool:
        """Whether the model answered."""
        return self.completion is not None

    @property
    def text(self) -> str | None:
        """The answer; None for a failure."""
        return None if self.completion is None else self.completion.text

    @property
    def parsed(self) -> M | None:
        """The parsed answer; None for a failure, and without a schema."""
        return None if self.completion is None else self.completion.parsed

    @property
    def error(self) -> str | None:
        """The message of the failure; None for an answer."""
        return None if self.failure is None else self.failure.message

    def raise_for_failure(self) -> Completion[M]:
        """The completion; raises ImageFailed for a failure."""
        if self.completion is None:
            assert self.failure is not None, "a result has one of both"
            raise ImageFailed(self.id, self.failure)
        return self.completion

    def __repr__(self) -> str:
        """One line with the id and the answer or the failure, cut to 80 characters."""
        shown = f"error={self.error!r}" if self.completion is None else f"text={self.text!r}"
        whole = f"Result(id={self.id!r}, {shown})"
        return whole if len(whole) <= LONGEST_REPR else f"{whole[: LONGEST_REPR - 4]}...)"

    @property
    def content(self) -> str | None:
        """The digest of its images; None if an image was not read."""
        digests = [facts.sha256 for facts in (self.image, *self.more_images)]
        return None if None in digests else content_of(map(str, digests))

    @property
    def is_known(self) -> bool:
        """Whether the answer is reused and needed no request."""
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
            "started_at": self.started_at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
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
    """Return the fields by name; dataclasses.asdict takes ten times as long, since it copies their values."""
    return {name: getattr(value, name) for name in value.__slots__}


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def to_line(record: Mapping[str, Any]) -> bytes:
    """Return the JSONL line: ASCII only, so that it keeps any file name and contains no other line break.

    The numbers of a reply are checked where they are read (backends/values.py, strict_json.py), since NaN
    and infinite numbers are no JSON.
    """
    return _ENCODER.encode(record).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSummary:
    """The counts of one endpoint in a run; `answered` and `failed` count images, not attempts."""

    backend: str
    url: str
    model: str
    answered: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended. `failed` counts failures of this run, `failed_before` failures of earlier runs.

    `total` is the sum of `succeeded`, `failed`, `failed_before` and `skipped`: images that were done before.
    `stopped`: more images remain. `unreadable` counts folders and files that could not be read. `ignored`
    counts entries that are not images, and `ignored_kinds` those that may hold pictures, by kind, such as
    PDF. `skipped_entries` counts hidden and system entries by kind: `hidden`, or a name such as @eaDir.
    `empty_paths` are the PATHs that are folders and hold no image.
    `frames` images have several pages or frames, of which only the first was read. Of the images that
    succeeded, `duplicates` reuse the answer of an image with the same content, `cached` have an answer from
    --cache, and a fallback answered `fallbacks`. `reduced` got a smaller picture than the options say, since
    a larger one did not fit at the endpoint. `usage` covers the answers, and `duration_s` is in seconds.
    `endpoints` has a row for each endpoint, and is empty for a single one. `cost` is in US dollars and covers
    all requests, even those without a record; None if unknown.
    """

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    failed_before: int = 0
    unreadable: int = 0
    ignored: int = 0
    ignored_kinds: Mapping[str, int] = field(default_factory=dict)
    skipped_entries: Mapping[str, int] = field(default_factory=dict)
    empty_paths: tuple[str, ...] = ()
    frames: int = 0
    duplicates: int = 0
    cached: int = 0
    fallbacks: int = 0
    reduced: int = 0
    usage: Usage = field(default_factory=Usage)
    duration_s: float = 0.0
    stopped: bool = False
    endpoints: tuple[EndpointSummary, ...] = ()
    cost: float | None = None

    def __repr__(self) -> str:
        """One line with the main counts, and all other numbers that are not 0."""
        usual = ("total", "succeeded", "failed")
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        shown = ((n, v) for n, v in values if n in usual or (v and isinstance(v, bool | int | float)))
        return f"Summary({', '.join(f'{name}={value!r}' for name, value in shown)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """One model of one endpoint; a value that the endpoint does not report is None.

    `bytes` is the size on disk; `parameters` and `quantization` are in the endpoint's own words (`8.3B`,
    `Q4_K_M`); `context` is the model's context length and `loaded_context` that of the loaded model, in
    tokens; `on_gpu` is the part of the loaded model that is in GPU memory, 0 to 1; `elsewhere` is the remote
    host that answers if the endpoint only forwards requests.
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
