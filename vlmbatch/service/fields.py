"""The fields of requests and replies, as pydantic checks them and /openapi.json shows them."""

import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
)

from vlmbatch.config.job_queue import Priority
from vlmbatch.jobs.job import JobStatus
from vlmbatch.service.models import Asked

LONGEST_PROMPT = 32_000
"""Characters of a prompt or a system message; a page of text has about 3,000."""
LONGEST_WAIT_S = 60
"""A request may wait this long for the end of a job, in seconds."""
MOST_IMAGES = 100
"""Pictures in one request to /analyze/batch."""
LARGEST_TOKENS = 1_000_000
LARGEST_SEED = 2**63 - 1
TEXT = "<text>"
"""Tells a text from an object. Tags in angle brackets are no part of the place in a message."""
SIZES = (32, 65_500)
"""The longest side of a picture that a model gets, in pixels: from, to."""


def _object(value: object) -> object:
    """A JSON object from the text of a form field; other values are unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError('it is not JSON; write a JSON Schema, such as {"type": "object", ...}') from error


def _size(value: int) -> int:
    least, most = SIZES
    if value != 0 and not least <= value <= most:
        raise ValueError(f"write 0, or {least} to {most} pixels")
    return value


_SIZE = {
    "anyOf": [
        {"type": "integer", "const": 0},
        {"type": "integer", "minimum": SIZES[0], "maximum": SIZES[1]},
    ]
}
Size = Annotated[int, AfterValidator(_size), WithJsonSchema(_SIZE)]
Schema = Annotated[dict[str, Any], BeforeValidator(_object)]
Text = Annotated[str, Field(max_length=LONGEST_PROMPT)]


class Fields(BaseModel):
    """The question of a request, and its options."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    prompt: Text | None = Field(
        None, description="The question about the image.", examples=["What animal is this?"]
    )
    system: Text | None = Field(None, description="A system message.")
    json_schema: Schema | None = Field(
        None,
        alias="schema",
        description="A JSON Schema: the answer is JSON that matches it.",
        examples=[{"type": "object", "properties": {"animal": {"type": "string"}}, "required": ["animal"]}],
    )
    model: str | None = Field(None, max_length=200, description="One of GET /v1/models.")
    max_tokens: int | None = Field(
        None, ge=1, le=LARGEST_TOKENS, description="The longest answer, in tokens."
    )
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-LARGEST_SEED, le=LARGEST_SEED)

    def asked(self) -> Asked:
        """The question; a missing option is that of the service."""
        schema = self.json_schema
        return Asked(
            prompt=self.prompt,
            system=self.system,
            schema=None if schema is None else json.dumps(schema),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )


class SizedFields(Fields):
    """A question, with the size and the quality of the picture that the model gets."""

    max_size: Size | None = Field(
        None, description="The longest side of the picture in pixels. 0: do not shrink it."
    )
    quality: int | None = Field(None, ge=1, le=100, description="The JPEG quality of the picture.")

    def asked(self) -> Asked:
        """The question with its size; a missing option is that of the service."""
        return replace(super().asked(), max_size=self.max_size, quality=self.quality)


Base64 = Annotated[
    str, Field(min_length=1, description="The bytes of an image file in base64, or a data URL.")
]


class AnalyzeBody(Fields):
    """A question about an image in base64."""

    image_base64: Base64


class OptimizedBody(SizedFields):
    """A question about an image in base64, with the size and the quality that the model gets."""

    image_base64: Base64


class BatchImage(BaseModel):
    """One image of a batch."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: str | None = Field(None, min_length=1, max_length=200, description="The id of the answer.")
    image_base64: Base64


def _kind_of_image(value: object) -> str:
    return TEXT if isinstance(value, str) else "<object>"


Image = Annotated[
    Annotated[Base64, Tag(TEXT)] | Annotated[BatchImage, Tag("<object>")], Discriminator(_kind_of_image)
]


class BatchBody(Fields):
    """A question about many images."""

    images: list[Image] = Field(min_length=1, max_length=MOST_IMAGES)


class JobFields(Fields):
    """A question for the job queue."""

    priority: Priority | None = Field(
        None, description="Workers take jobs with the priority high first, and low last. Default: normal."
    )


class JobBody(JobFields):
    """A question for the job queue, about an image in base64."""

    image_base64: Base64


class Wait(BaseModel):
    """How long a request waits for the end of a job, in seconds."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    wait: float = Field(0.0, ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False)


class ErrorFields(BaseModel):
    """Why a request has no answer."""

    model_config = ConfigDict(extra="allow")

    kind: str
    message: str
    retryable: bool


class Failed(BaseModel):
    """The reply to a request without an answer. A failure of the model also has the fields of a record."""

    model_config = ConfigDict(extra="allow")

    result: None
    error: ErrorFields
    request_id: str


class Answer(BaseModel):
    """The reply to a request about one image: a record (docs/records.md) and its answer as `result`."""

    model_config = ConfigDict(extra="allow")

    result: str
    id: str
    status: Literal["ok"]
    model: str
    usage: dict[str, Any]
    image: dict[str, Any]
    warnings: list[str]
    duration_s: float
    request_id: str


class BatchLine(BaseModel):
    """The answer to one picture of a batch, or why it has none. An answer also has the fields of a record."""

    model_config = ConfigDict(extra="allow")

    index: int = Field(description="The position of the picture in the request, from 0.")
    id: str
    result: str | None
    status: Literal["ok", "error"]
    error: ErrorFields | None
    request_id: str


class JobSent(BaseModel):
    """The job of a request, and its status now."""

    job_id: str
    status: JobStatus
    request_id: str


class JobReply(BaseModel):
    """A job. Once it is complete or failed, it also has the fields of a record (docs/records.md).

    Its `status` replaces that of the record.
    """

    model_config = ConfigDict(extra="allow")

    job_id: str
    status: JobStatus
    result: str | None
    error: ErrorFields | None
    request_id: str


class Health(BaseModel):
    """The service is alive."""

    status: Literal["ok"]


class Ready(BaseModel):
    """The first model answers. `models` has the state of each model, unless clients need keys.

    `queue` is `up`, or says why the job queue cannot be used; a service without a queue has none.
    """

    status: Literal["ready"]
    models: dict[str, str] | None = None
    queue: str | None = None


class NotReady(BaseModel):
    """The first model takes no requests."""

    status: Literal["not ready"]
    reason: str
    queue: str | None = None
