"""The values of a job: what Redis holds of it, as JSON."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vlmbatch import strict_json
from vlmbatch.config.job_queue import PRIORITIES, Priority
from vlmbatch.config.spec import LONGEST_S
from vlmbatch.errors import VlmbatchError

FORMAT = 1
"""The version of the payload of a job."""
LARGEST_PAYLOAD = 1 << 20
"""In bytes: a payload has keys and names, and no images."""
COPIES = "jobs/"
"""Keys in the store with this start are copies for one job."""
JobStatus = Literal["pending", "started", "complete", "failed", "cancelled"]
"""`failed`: the job has a record of a failure, or no worker can read it."""


class JobFormatError(VlmbatchError):
    """The data in Redis is no job of vlmbatch. `is_newer`: a newer version of vlmbatch wrote it."""

    def __init__(self, message: str, *, is_newer: bool = False) -> None:
        super().__init__(message)
        self.is_newer = is_newer


@dataclass(frozen=True, slots=True, kw_only=True)
class JobImage:
    """One image of a job: its key in the store, and the size and mtime of the user's file, if it had one."""

    key: str
    bytes: int | None = None
    mtime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJob:
    """A question about one image, or about several in one request. `image_id` is the id of its record.

    `question` is the digest of the question's options (see questions.py). `scope` separates the answers of
    clients. `batch` is the name of its batch, empty without one. `keep_s` is how long its result is kept, in
    seconds. Only workers of `model` take it; empty means any worker.
    """

    id: str
    image_id: str
    images: tuple[JobImage, ...]
    question: str
    keep_s: int
    scope: str = ""
    batch: str = ""
    priority: Priority = "normal"
    model: str = ""

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return queue_name(self.priority, self.model)

    @property
    def copies(self) -> list[str]:
        """The keys of its images that no other job has."""
        return [image.key for image in self.images if image.key.startswith(COPIES)]

    def payload(self) -> dict[str, Any]:
        """The job as JSON values; from_data() reads them back."""
        return {
            "v": FORMAT,
            "image_id": self.image_id,
            "images": [[image.key, image.bytes, image.mtime] for image in self.images],
            "question": self.question,
            "keep_s": self.keep_s,
            "scope": self.scope,
            "batch": self.batch,
            "priority": self.priority,
            "model": self.model,
        }

    @classmethod
    def from_data(cls, job_id: str, data: bytes) -> Self:
        """The job in the field `data` of its hash, which any program with access to Redis may have written.

        Raises:
            JobFormatError: it is not a job of this version.
        """
        payload = _payload_in(data)
        version = payload.get("v")
        if isinstance(version, int) and version > FORMAT:
            raise JobFormatError(f"its format is version {version}", is_newer=True)
        if version != FORMAT:
            raise JobFormatError("its format is not that of vlmbatch")
        try:
            return cls(
                id=job_id,
                image_id=_text(payload["image_id"]),
                images=tuple(map(_image, payload["images"])),
                question=_text(payload["question"]),
                keep_s=_seconds(payload["keep_s"]),
                scope=_text(payload["scope"]),
                batch=_text(payload["batch"]),
                priority=_priority(payload["priority"]),
                model=_text(payload["model"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise JobFormatError("one of its fields is missing or wrong") from error


def queue_name(priority: Priority, model: str) -> str:
    """The queue of the jobs of this priority for this model; empty means any model."""
    return f"vlmbatch:{priority}:{model}" if model else f"vlmbatch:{priority}"


def job_id_of(*parts: object) -> str:
    """The id of the job with these parts: the same for the same parts, on any machine."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _payload_in(data: bytes) -> Mapping[str, Any]:
    """The keyword arguments in RQ's form of data: a list of function, instance, arguments and keywords."""
    unpacked = zlib.decompressobj()
    try:
        plain = unpacked.decompress(data, LARGEST_PAYLOAD)
        _name, _instance, _args, payload = strict_json.loads(plain)
    except (zlib.error, ValueError, TypeError) as error:
        raise JobFormatError("its data is not JSON; vlmbatch never reads other data") from error
    if unpacked.unconsumed_tail or not isinstance(payload, dict):
        raise JobFormatError("its data is too large, or not that of vlmbatch")
    return payload


def _image(value: Any) -> JobImage:
    key, size, mtime = value
    return JobImage(
        key=_text(key),
        bytes=None if size is None else _whole(size),
        mtime=None if mtime is None else _number(mtime),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a whole number")
    return value


def _seconds(value: Any) -> int:
    if _whole(value) > LONGEST_S:
        raise ValueError("not a time that Redis can keep")
    return value  # type: ignore[no-any-return]  # a whole number


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("not a number")
    return value


def _priority(value: Any) -> Priority:
    if value not in PRIORITIES:
        raise ValueError("not a priority")
    return value  # type: ignore[no-any-return]  # one of them
