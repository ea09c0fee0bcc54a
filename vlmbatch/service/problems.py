"""Why a request gets no answer: the kinds of errors, and the HTTP status of each."""

from collections.abc import Mapping
from typing import Any, Literal

from starlette.exceptions import HTTPException

from vlmbatch.errors import FailureKind

RequestKind = Literal[
    "bad_request",  # 400: not HTTP, JSON or multipart as it should be
    "bad_host",  # 400: the name of another host: a web page may be trying to reach this machine
    "unauthorized",  # 401: no API key, or a wrong one
    "forbidden",  # 403: the key, or the origin of a web page, may not do this
    "not_found",  # 404
    "method_not_allowed",  # 405
    "slow_request",  # 408: the body stopped arriving
    "not_an_image",  # 415
    "unsupported_media_type",  # 415: the body is neither JSON nor multipart
    "not_fetched",  # 422: the image at a URL could not be fetched
    "bad_option",  # 422: a value is missing, of a wrong type or out of range
    "rate_limited",  # 429
    "client_gone",  # 499: the client closed the connection; only the log and the metrics have it
    "overloaded",  # 503: too many requests in progress
    "stopping",  # 503: the service is stopping
    "no_queue",  # 503: the service has no job queue
    "queue_away",  # 503: the Redis or the store of the job queue cannot be reached
    "queue_full",  # 503: the Redis of the job queue takes no more data
]
"""The values of ``error.kind`` for requests that reach no model; all others are those of records."""

STATUS: Mapping[FailureKind | RequestKind, int] = {
    "bad_request": 400,
    "bad_host": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_request": 408,
    "not_an_image": 415,
    "unsupported_media_type": 415,
    "not_fetched": 422,
    "bad_option": 422,
    "rate_limited": 429,
    "client_gone": 499,
    "overloaded": 503,
    "stopping": 503,
    "no_queue": 503,
    "queue_away": 503,
    "queue_full": 503,
    # the image
    "bad_image": 422,
    "too_large": 413,
    "bad_shape": 422,
    "not_a_file": 500,
    "vanished": 500,
    "unreadable": 500,
    "io_error": 500,
    # the endpoint
    "timeout": 504,
    "connection": 502,
    "server_error": 502,
    "crash": 502,
    "busy": 503,
    "down": 503,
    "bad_response": 502,
    "rejected": 422,
    "refused": 422,
    "context": 422,
    "body_too_large": 413,
    # the answer
    "empty": 502,
    "truncated": 502,
    "degenerate": 502,
    "bad_schema": 502,
    # the set-up of the endpoint
    "model_not_found": 502,
    "no_vision": 502,
    "auth": 502,
    "quota": 503,
    "wrong_url": 502,
    "bad_config": 502,
    # vlmbatch itself
    "internal": 500,
}
"""The HTTP status of each kind."""
OF_STATUS: Mapping[int, RequestKind] = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
    422: "bad_option",
}
"""The kinds of errors that the web framework raises itself."""
LASTING: frozenset[FailureKind | RequestKind] = frozenset(
    ("model_not_found", "no_vision", "auth", "quota", "wrong_url", "bad_config", "no_queue")
)
"""The endpoint is set up wrongly: the operator must act before the same request can succeed."""
AGAIN_S: Mapping[int, int] = {429: 1, 503: 10}
"""For these statuses, when a client may try again, in seconds."""


class Problem(HTTPException):
    """A request gets no answer. `retryable`: the same request may succeed later."""

    def __init__(
        self,
        kind: FailureKind | RequestKind,
        message: str,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`retry_after_s` is the value of Retry-After; the statuses 429 and 503 always have one."""
        self.kind = kind
        self.message = message
        status = STATUS[kind]
        after_s = AGAIN_S.get(status) if retry_after_s is None else retry_after_s
        again = {} if after_s is None else {"Retry-After": str(after_s)}
        super().__init__(status, message, {**again, **(headers or {})})

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status_code in (408, 429, 502, 503, 504) and self.kind not in LASTING

    @classmethod
    def of(cls, error: HTTPException) -> "Problem":
        """The problem of an error that the web framework raised."""
        if isinstance(error, Problem):
            return error
        kind = OF_STATUS.get(error.status_code, "bad_request")
        return cls(kind, _sentence(error), headers=error.headers)


def out_of_resources() -> Problem:
    """The problem of a request that finds the machine without memory, threads or descriptors."""
    return Problem("overloaded", "the service has no free memory or open files left; try again later")


def _sentence(error: HTTPException) -> str:
    if error.status_code == 404:
        return "this route does not exist; GET /openapi.json lists all routes"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return f"this route does not take this method; use {allowed}"
    return str(error.detail)


def error_body(problem: Problem, request_id: str, path: str) -> dict[str, Any]:
    """The JSON body of a failed request: in OpenAI's form below /v1, else in that of this service."""
    if path.startswith("/v1/"):
        kind = "server_error" if problem.status_code >= 500 else "invalid_request_error"
        error = {"message": problem.message, "type": kind, "param": None, "code": problem.kind}
        return {"error": error, "request_id": request_id}
    told = {"kind": problem.kind, "message": problem.message, "retryable": problem.retryable}
    return {"result": None, "error": told, "request_id": request_id}
