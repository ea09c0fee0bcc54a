"""One call of a client: its request id, its key, its time, and what the log and the metrics tell about it."""

import re
import time
import uuid
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from vlmbatch.records import Result
from vlmbatch.service.keys import ApiKey
from vlmbatch.service.problems import STATUS, Problem

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PLACE = "vlmbatch.call"


@dataclass(slots=True, kw_only=True)
class Call:
    """A request from its first byte to its last. `deadline_s` is the time that it may take, in seconds."""

    request_id: str
    method: str
    path: str
    address: str
    deadline_s: float
    key: ApiKey | None = None
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    kind: str = ""
    """The kind of the failure; empty if the client got an answer."""
    model: str = ""
    prompt: str = ""
    answer_chars: int | None = None
    cached: bool = False
    image_bytes: list[int] = field(default_factory=list)
    """The sizes of the image files that came."""
    results: list[Result] = field(default_factory=list)
    """What the session has answered so far, for the metrics."""

    @property
    def duration_s(self) -> float:
        """The time since the first byte."""
        return time.monotonic() - self.began

    @property
    def left_s(self) -> float:
        """The time that is left for an answer."""
        return max(self.deadline_s - self.duration_s, 0.0)

    @property
    def scope(self) -> str:
        """What separates the answers of this client from those of others; empty without keys."""
        return "" if self.key is None else self.key.name

    def failed(self, problem: Problem) -> None:
        """The client gets this problem instead of an answer."""
        self.status, self.kind = problem.status_code, problem.kind

    def left(self) -> None:
        """The client has closed the connection before its reply was complete."""
        self.status, self.kind = STATUS["client_gone"], "client_gone"

    def put_into(self, scope: MutableMapping[str, Any]) -> None:
        """Let the handlers of this request find it."""
        scope[_PLACE] = self

    @staticmethod
    def of(scope: Mapping[str, Any]) -> "Call":
        """The call of this request."""
        call: Call = scope[_PLACE]
        return call


def request_id_of(given: str | None) -> str:
    """The id that the client gave in X-Request-ID, if it is one; else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex


def route_of(scope: Mapping[str, Any]) -> str:
    """The pattern of the path of a request, once the app has found its route; else `unknown`."""
    return getattr(scope.get("route"), "path", "unknown")
