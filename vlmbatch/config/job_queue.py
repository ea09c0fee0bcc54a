"""The options of the job queue: its Redis, the store of its images, and its batches."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from vlmbatch.config.spec import LONGEST_S, option, parse_duration, redact_place, require

SCHEMES = ("redis://", "rediss://", "unix://")
Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""The priorities, in the order in which workers take their jobs."""
_BATCH = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """Where jobs wait, where their images are stored, and how they are grouped."""

    queue: str | None = option(
        None,
        "The Redis with the job queue. Safer for a URL with a password: the variable VLMBATCH_QUEUE.",
        metavar="redis://HOST",
        secret=True,  # it may hold a password
    )
    store: str | None = option(
        None,
        "The folder, or the URL such as s3://BUCKET/PATH, with the images of jobs.",
        metavar="DIR|URL",
        shown_default="~/.local/share/vlmbatch/store",
        secret=True,  # it may hold a password
    )
    result_ttl: float = option(
        86400.0,
        "How long the result of a job is kept, for example 12h or 7d.",
        metavar="TIME",
        parse=parse_duration,
        shown_default="24h",
    )
    batch: str = option(
        "default",
        "The name of the batch: enqueue adds images to it, and collect writes its records.",
        metavar="NAME",
    )
    priority: str = option(
        "normal",
        "Workers take jobs with high priority first, and with low priority last.",
        metavar="|".join(PRIORITIES),
        choices=PRIORITIES,
    )

    def __post_init__(self) -> None:
        require(
            self.queue is None or self.queue.startswith(SCHEMES),
            f"--queue {redact_place(self.queue or '')} is not the URL of a Redis; write for example "
            "redis://127.0.0.1:6379",
        )
        require(
            self.store is None or bool(self.store.strip()),
            "--store is empty; name a folder, or leave it out",
        )
        require(
            1 <= self.result_ttl <= LONGEST_S,
            f"--result-ttl must be at least a second and at most ten years, not {self.result_ttl:g}",
        )
        require(
            _BATCH.fullmatch(self.batch) is not None,
            f"--batch {self.batch!r} cannot be the name of a batch; write 1 to 64 letters, digits, dots, "
            "hyphens or underscores",
        )
        require(
            self.priority in PRIORITIES,
            f"--priority {self.priority} is not known; write high, normal or low",
        )
