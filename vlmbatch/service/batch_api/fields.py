"""The fields of the Files API and of the Batch API, as clients of OpenAI send and read them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vlmbatch.service.chat_fields import ChatBody

ENDPOINT = "/v1/chat/completions"
"""The only endpoint of batches."""
LONGEST_CUSTOM_ID = 512
MOST_METADATA = 16
MOST_LISTED_FILES = 10_000
MOST_LISTED_BATCHES = 100
USUAL_BATCHES = 20
Id = Annotated[str, Field(max_length=64)]
Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
Purpose = Literal["batch", "batch_output"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class UploadFields(_Strict):
    """The fields of the form that uploads a file."""

    purpose: Literal["batch"] = Field(description="What the file is for.")


class ListFields(_Strict):
    """Which part of a list of batches the client wants."""

    after: Id | None = Field(None, description="The last id of the page before this one.")
    limit: int | None = Field(None, ge=1, le=MOST_LISTED_BATCHES)


class FileListFields(_Strict):
    """Which part of the list of files the client wants."""

    after: Id | None = Field(None, description="The last id of the page before this one.")
    limit: int | None = Field(None, ge=1, le=MOST_LISTED_FILES)
    order: Literal["asc", "desc"] | None = Field(None, description="desc, the default: new files first.")
    purpose: str | None = Field(None, max_length=64, description="List only files with this purpose.")


class NewBatch(_Strict):
    """The body of a request for a new batch."""

    input_file_id: Id
    endpoint: Literal["/v1/chat/completions"]
    completion_window: Literal["24h"] = Field(description="Without effect: a batch never expires.")
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=MOST_METADATA),
        ]
        | None
    ) = None


class LineFields(BaseModel):
    """One line of the input file of a batch: a request."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    custom_id: str = Field(min_length=1, max_length=LONGEST_CUSTOM_ID)
    method: Literal["POST"]
    url: Literal["/v1/chat/completions"]
    body: ChatBody


class FileObject(BaseModel):
    """A file of the service."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose
    status: Literal["processed"]


class FileList(BaseModel):
    """A part of the list of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file is deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class RequestCounts(BaseModel):
    """How many requests a batch has, and how many of them have an answer or a failure."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch. A time is in seconds since 1970, and null before it has come."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: dict[str, Any] | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A part of the list of batches, the new ones first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
