"""The plan of a batch: one line for each line of its input, with its job or with what is wrong with it."""

import json
from dataclasses import dataclass
from typing import Any, Self

from vlmbatch import strict_json
from vlmbatch.jobs.job import job_id_of
from vlmbatch.service.problems import STATUS, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLine:
    """A line of the input: its number from 1, and the number of its images or the words of its problem.

    A line that was cancelled before it became a job has no images and no problem.
    """

    number: int
    custom_id: str | None
    images: int = 0
    kind: str = ""
    message: str = ""

    @classmethod
    def wrong(cls, number: int, custom_id: str | None, problem: Problem) -> Self:
        """A line with this problem."""
        message = f"line {number}: {problem.message}"
        return cls(number=number, custom_id=custom_id, kind=problem.kind, message=message)

    @classmethod
    def of(cls, line: bytes) -> Self:
        """The line in these bytes of the plan."""
        number, custom_id, images, kind, message = strict_json.loads(line)
        return cls(number=number, custom_id=custom_id, images=images, kind=kind, message=message)

    def as_line(self) -> bytes:
        """The bytes of it; of() reads them back."""
        values = [self.number, self.custom_id, self.images, self.kind, self.message]
        return json.dumps(values).encode() + b"\n"

    @property
    def problem(self) -> Problem | None:
        """What is wrong with it."""
        if not self.kind:
            return None
        kind: Any = self.kind if self.kind in STATUS else "bad_request"
        return Problem(kind, self.message)

    def job_id(self, batch_id: str) -> str:
        """The id of its job."""
        return line_job_id(batch_id, self.number)


def line_job_id(batch_id: str, number: int) -> str:
    """The id of the job of this line: always the same one."""
    return job_id_of("batch", batch_id, number)


def image_keys(day: str, job_id: str, number: int) -> list[str]:
    """Where the images of a job are in the store; `day` is that of its batch."""
    return [f"jobs/{day}/{job_id}/{each}" for each in range(number)]
