"""The tree of errors. Each class has the exit code with which it ends a command.

VlmbatchError                  the root; raised itself, it is a bug                           exit 1
├─ ConfigError                 a flag, file, model or key is wrong; the run did not start      exit 2
├─ MissingDependencyError      an optional package is not installed; names the extra           exit 2
├─ ResourceError               the machine is out of descriptors or memory                     exit 2
├─ ImageError                  this image cannot be read or decoded: a failed result
├─ BackendError
│  ├─ TransientError           timeout, lost connection, 5xx: retried, then a failed result
│  │  └─ StaleConnectionError  a reused connection was closed: retried at once, at no cost
│  ├─ RejectedError            the endpoint refuses this image: a failed result
│  ├─ BadAnswerError           empty, cut, looping: retried with a change, then a failed result
│  ├─ InternalError            a bug in vlmbatch at one image or one reply: a failed result
│  ├─ UnavailableError         the endpoint is down or busy: the run pauses                    exit 4
│  │  └─ UnreachableError      the endpoint accepts no connection                              exit 4
│  └─ FatalBackendError        unknown model, no vision, bad key: no image can succeed         exit 2
│     └─ RefusedOptionError    the endpoint refuses an option of the user with any picture
├─ OutputError                 the results cannot be written                                   exit 5
├─ OutputClosed                the reader of standard output has closed it (| head)            exit 0
├─ ImageFailed                 an image failed; Result.raise_for_failure() raises it
├─ AnswerClassError            the user's pydantic class raised an exception of its own
├─ Busy                        a session has as many waiting calls as it may have
├─ SessionClosed               the session was closed before the call had its answer
├─ QueueAwayError              the Redis of the job queue cannot be reached                    exit 4
├─ QueueFullError              the Redis of the job queue takes no more data                   exit 5
├─ StoreAwayError              the store of the job queue cannot be reached or is full         exit 4
└─ LockedError                 another run writes to the same output                           exit 75
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

if TYPE_CHECKING:
    from vlmbatch.records import Failure

E = TypeVar("E", bound=BaseException)

__all__ = [
    "BackendError",
    "BadAnswerError",
    "Busy",
    "ConfigError",
    "FatalBackendError",
    "ImageError",
    "ImageFailed",
    "InternalError",
    "LockedError",
    "MissingDependencyError",
    "OutputClosed",
    "OutputError",
    "QueueAwayError",
    "QueueFullError",
    "RefusedOptionError",
    "RejectedError",
    "ResourceError",
    "SessionClosed",
    "StaleConnectionError",
    "StoreAwayError",
    "TransientError",
    "UnavailableError",
    "UnreachableError",
    "VlmbatchError",
    "VlmbatchWarning",
]

FailureKind = Literal[
    # the image
    "bad_image",  # cannot be decoded, or only partly
    "too_large",  # more bytes or pixels than allowed
    "bad_shape",  # a side or an aspect ratio that no model accepts
    "not_a_file",  # a folder, FIFO, socket or device
    "vanished",  # listed, but gone when it was read
    "unreadable",  # permission denied
    "io_error",  # the disk or network file system failed
    # the endpoint
    "timeout",
    "connection",
    "server_error",
    "crash",  # the engine crashed on it
    "busy",  # 429, 503: too many requests
    "down",  # no server answers
    "bad_response",  # not the JSON that the API format promises
    "rejected",  # the endpoint refuses this request
    "refused",  # a content filter refuses this picture or answer
    "context",  # picture and prompt exceed the model's context
    "body_too_large",  # 413
    # the answer
    "empty",
    "truncated",  # cut by the token limit
    "degenerate",  # a loop, or a reply without its end mark
    "bad_schema",
    # the set-up
    "model_not_found",
    "no_vision",
    "auth",
    "quota",
    "wrong_url",
    "bad_config",
    # vlmbatch itself
    "internal",  # a bug
]
"""The closed list of values of ``error.kind`` in a record."""

Change = Literal["reseed", "no_thinking", "shrink"]
"""The change for a retry after a bad answer: another seed, no thinking, or a smaller picture."""


class VlmbatchError(Exception):
    """The root: ``except VlmbatchError`` catches every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(VlmbatchError):
    """A flag, a file, a model name or a key is wrong; the run did not start."""

    exit_code = 2


class MissingDependencyError(VlmbatchError):
    """An optional package is not installed; the message names the command that installs it."""

    exit_code = 2


class ResourceError(VlmbatchError):
    """The machine is out of descriptors or memory: a failure of the run, not of an image."""

    exit_code = 2

    @classmethod
    def behind(cls, error: BaseException) -> "ResourceError | None":
        """Return a ResourceError if the machine's resources caused this error, else None."""
        is_full = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
        if is_full or (isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error)):
            return cls(
                "too many open files: no more can be opened; allow more with ulimit -n, "
                "or set a smaller --concurrency, and run the same command again"
            )
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return cls.out_of_memory()
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return cls(
                "no more threads can be started; allow more processes (ulimit -u) or memory (ulimit -v), "
                "and run the same command again"
            )
        return None

    @classmethod
    def out_of_memory(cls) -> "ResourceError":
        """Return the error for exhausted memory."""
        return cls(
            "this process is out of memory; set a smaller --concurrency or --decode-memory, allow more "
            "memory (ulimit -v), or end other programs, and run the same command again"
        )


@contextmanager
def resource_errors() -> Iterator[None]:
    """Raise a ResourceError for each error in the ``with`` that the machine's resources caused."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        trouble = ResourceError.behind(error)
        if trouble is None:
            raise
        raise trouble from error


class ImageError(VlmbatchError):
    """The image cannot be used. `retryable` says whether a later run may succeed with it."""

    def __init__(self, message: str, *, kind: FailureKind = "bad_image", retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """A request that does not fit into a context: the sizes in tokens, as the endpoint counts them.

    `input_tokens` is the size of pictures and prompt. `output_tokens` is the room that the answer needs, None
    if that is unknown. `at_least`: the input may be larger, since the endpoint stopped counting.
    """

    input_tokens: int
    context: int
    output_tokens: int | None = None
    at_least: bool = False


class BackendError(VlmbatchError):
    """The endpoint gave no usable answer. `partial` is the text that arrived, if any."""

    kind: FailureKind = "server_error"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        kind: FailureKind | None = None,
        retry_after: float | None = None,
        partial: str | None = None,
        change: Change = "reseed",
        retryable: bool | None = None,
    ) -> None:
        """`retry_after` is the delay in seconds that the endpoint asked for; `change` is for bad answers.

        `kind` and `retryable` default to those of the class.
        """
        super().__init__(message)
        if kind is not None:
            self.kind = kind
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after
        self.cost: float | None = None
        """The cost of the unusable answer in US dollars; None if unknown."""
        self.owes_cost = False
        """Whether the endpoint should have reported the cost of the unusable answer, and did not."""
        self.tokens: tuple[int, int] | None = None
        """The input and output tokens of the unusable answer; None if no whole answer came."""
        self.partial = partial
        self.change: Change = change
        self.status: int | None = None
        """The HTTP status of the reply; None if no reply of the endpoint caused this error."""
        self.told = ""
        """The endpoint's own words."""
        self.marks: tuple[str, ...] = ()
        """The endpoint's types and codes of the error."""
        self.by_status = False
        """Whether only the status says what the error means, since no known words are in the reply."""
        self.overflow: Overflow | None = None
        """The sizes of the request and the context, if the endpoint reports that the request does not fit."""


class TransientError(BackendError):
    """A retry may succeed; this failure counts as one of the image's attempts."""

    retryable = True


class StaleConnectionError(TransientError):
    """A reused connection was closed before the endpoint received the request."""

    kind: FailureKind = "connection"


class RejectedError(BackendError):
    """The endpoint refuses this image; a retry would not help."""

    kind: FailureKind = "rejected"


class BadAnswerError(BackendError):
    """The answer is unusable; a retry with a `change` may help."""

    kind: FailureKind = "empty"


class InternalError(BackendError):
    """A bug of vlmbatch at one image or one reply; the next run tries the image again."""

    kind: FailureKind = "internal"
    retryable = True


class UnavailableError(BackendError):
    """The endpoint is down or busy: a state of the run, not of an image."""

    kind: FailureKind = "down"
    retryable = True
    exit_code = 4


class UnreachableError(UnavailableError):
    """The endpoint accepts no connection: it is down, or the network path to it is closed."""

    refused: bool = False
    """Whether the connection was refused, so that no process listens at the address."""


class FatalBackendError(BackendError):
    """No image can succeed with these settings."""

    kind: FailureKind = "bad_config"
    exit_code = 2


class RefusedOptionError(FatalBackendError):
    """The endpoint refuses an option of the user by its name, with any picture."""


class OutputError(VlmbatchError):
    """The results cannot be written; the file ends after its last complete line."""

    exit_code = 5


class OutputClosed(VlmbatchError):
    """The reader of standard output has closed it; the run ends without an error."""

    exit_code = 0


class LockedError(VlmbatchError):
    """Another run holds the lock of this output file, or another program fills or collects the batch.

    `is_certain`: that run has not ended. Else it may have ended on another machine, and the message says what
    to type then.
    """

    exit_code = 75

    def __init__(self, message: str, *, is_certain: bool = True) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class ImageFailed(VlmbatchError):
    """An image has no answer. Result.raise_for_failure() raises this error; `failure` is the reason."""

    def __init__(self, id: str, failure: "Failure") -> None:  # noqa: A002  # as in records
        super().__init__(id, failure)  # pickle makes the copy from these arguments
        self.id = id
        self.failure = failure

    def __str__(self) -> str:
        return f"{self.id}: {self.failure.message}"


class AnswerClassError(VlmbatchError):
    """The user's pydantic class raised an exception that is not a ValidationError. It ends the run or call.

    `raised` is that exception. run_batch() and sessions raise it instead of this error.
    """

    def __init__(self, raised: Exception) -> None:
        super().__init__(f"the pydantic class raised {type(raised).__name__}: {raised}")
        self.raised = raised


class Busy(VlmbatchError):
    """A session has as many waiting calls as it may have; try again later."""


class SessionClosed(VlmbatchError):
    """The session was closed before the call had its answer."""


class QueueAwayError(VlmbatchError):
    """The Redis of the job queue cannot be reached. Its jobs and results are there once it is back."""

    exit_code = 4


class QueueFullError(VlmbatchError):
    """The Redis of the job queue takes no more data: its memory or its disk is full."""

    exit_code = 5


class StoreAwayError(VlmbatchError):
    """The store of the job queue cannot be reached, or takes no more data."""

    exit_code = 4


class VlmbatchWarning(UserWarning):
    """A notice: a message of a run or session that the user must see. The command prints the same notices.

    These events have notices: RunStarted (notes about the endpoints, for example that it is the
    demonstration model), PreflightDelayed, EndpointPaused, SourceProblem, Notice, and BugFound (with its
    traceback).
    """


def shortened(error: E) -> E:
    """A VlmbatchError without its frames and its cause, since its message tells all; others are unchanged.

    Otherwise a script and a cell of a notebook would show hundreds of lines above the message.
    """
    if not isinstance(error, VlmbatchError):
        return error
    error.__cause__, error.__context__ = None, None
    return error.with_traceback(None)
