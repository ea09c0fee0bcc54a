"""Every way a run can fail, as one tree; each class knows the exit code it ends a command with.

VlmbatchError                  a bug, when nothing below fits                                 exit 1
├─ ConfigError                 a flag, file, model or key is wrong; nothing was started        exit 2
├─ MissingDependencyError      an optional package is not installed; names the extra           exit 2
├─ ResourceError               the machine is out of descriptors or memory: no image's fault     exit 2
├─ ImageError                  this image cannot be read or decoded: a failed result
├─ BackendError
│  ├─ TransientError           timeout, lost connection, 5xx: asked again, then a failed result
│  │  └─ StaleConnectionError  a kept connection was closed already: asked again at once, for nothing
│  ├─ RejectedError            the endpoint refuses this image: a failed result
│  ├─ BadAnswerError           empty, cut, looping: asked again differently, then a failed result
│  ├─ UnavailableError         the endpoint is down or busy: the run pauses                    exit 4
│  │  └─ UnreachableError      nobody takes the connection                                     exit 4
│  └─ FatalBackendError        unknown model, no vision, bad key: no image can succeed         exit 2
├─ OutputError                 the results cannot be written                                   exit 5
├─ OutputClosed                the reader of standard output has gone (| head): a quiet end    exit 0
├─ Busy                        a session has as many waiting calls as it may have
├─ SessionClosed               the session was closed before the call had its answer
└─ LockedError                 another run writes to the same output                           exit 75
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

FailureKind = Literal[
    # the image
    "bad_image",  # cannot be decoded, or only in part
    "too_large",  # more bytes or pixels than allowed
    "bad_shape",  # a side or an aspect ratio that no model takes
    "not_a_file",  # a folder, FIFO, socket or device
    "vanished",  # listed, but gone when it was read
    "unreadable",  # permission denied
    "io_error",  # the disk or network file system failed
    # the endpoint
    "timeout",
    "connection",
    "server_error",
    "crash",  # the engine died over it
    "busy",  # 429, 503: too many requests
    "down",  # nobody answers
    "bad_response",  # not the JSON that the wire format promises
    "rejected",  # the endpoint refuses this request
    "refused",  # a content filter refuses this picture or answer
    "context",  # picture and prompt do not fit into the model's context
    "body_too_large",  # 413
    # the answer
    "empty",
    "truncated",  # the token limit cut it
    "degenerate",  # a loop, or a reply without its end mark
    "bad_schema",
    # the set-up
    "model_not_found",
    "no_vision",
    "auth",
    "quota",
    "wrong_url",
    "bad_config",
]
"""The closed list of words that may stand in ``error.kind`` of a record."""

Change = Literal["reseed", "no_thinking", "shrink"]
"""How to ask again after a bad answer: another seed, no thinking, or a smaller picture."""


class VlmbatchError(Exception):
    """The root: ``except VlmbatchError`` catches all that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(VlmbatchError):
    """A flag, a file, a model name or a key is wrong; nothing was started."""

    exit_code = 2


class MissingDependencyError(VlmbatchError):
    """An optional package is not installed; the message names the command that installs it."""

    exit_code = 2


class ResourceError(VlmbatchError):
    """The machine is out of descriptors or memory: a trouble of the run, and of no image."""

    exit_code = 2

    @classmethod
    def behind(cls, error: BaseException) -> "ResourceError | None":
        """This error as one of resources, if it is one."""
        is_full = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
        if is_full or (isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error)):
            return cls(
                "too many open files: no other can be opened; allow more with ulimit -n, "
                "or set a smaller --concurrency, and run the same command again"
            )
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return cls.out_of_memory()
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return cls(
                "no thread can be started any more; allow more processes (ulimit -u) or memory (ulimit -v), "
                "and run the same command again"
            )
        return None

    @classmethod
    def out_of_memory(cls) -> "ResourceError":
        """The error for memory that is used up."""
        return cls(
            "this process can get no more memory; set a smaller --concurrency or --decode-memory, allow it "
            "more (ulimit -v), or end what else runs here, and run the same command again"
        )


@contextmanager
def resource_errors() -> Iterator[None]:
    """Let what shows that the machine is out of something come out of the ``with`` as a ResourceError."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        trouble = ResourceError.behind(error)
        if trouble is None:
            raise
        raise trouble from error


class ImageError(VlmbatchError):
    """This image cannot be used. `retryable` says whether a later run may find it well."""

    def __init__(self, message: str, *, kind: FailureKind = "bad_image", retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


class BackendError(VlmbatchError):
    """The endpoint did not give a usable answer. `partial` is the text that came, if any."""

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
        """`retry_after` is in seconds, as the endpoint asked; `change` counts for bad answers.

        `kind` and `retryable` are those of the class where they are not given.
        """
        super().__init__(message)
        if kind is not None:
            self.kind = kind
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after
        self.cost: float | None = None
        """What the useless answer cost all the same, in US dollars; None where nobody knows."""
        self.tokens = (0, 0)
        """How many it took, read and written."""
        self.partial = partial
        self.change: Change = change


class TransientError(BackendError):
    """It may well go right next time; it costs one of the image's attempts."""

    retryable = True


class StaleConnectionError(TransientError):
    """A connection kept from an earlier request was closed before this one was heard."""

    kind: FailureKind = "connection"


class RejectedError(BackendError):
    """The endpoint refuses this image; asking again would not help."""

    kind: FailureKind = "rejected"


class BadAnswerError(BackendError):
    """An answer came and is of no use; asking in another way (`change`) may help."""

    kind: FailureKind = "empty"


class UnavailableError(BackendError):
    """The endpoint is away or busy: a state of the run, not of an image."""

    kind: FailureKind = "down"
    retryable = True
    exit_code = 4


class UnreachableError(UnavailableError):
    """Nobody takes the connection: it is not there, or the way to it is closed."""


class FatalBackendError(BackendError):
    """No image can succeed with these settings."""

    kind: FailureKind = "bad_config"
    exit_code = 2


class OutputError(VlmbatchError):
    """The results cannot be written; the file ends at its last whole line."""

    exit_code = 5


class OutputClosed(VlmbatchError):
    """Whoever read the results from standard output wants no more of them: no fault, the run just ends."""

    exit_code = 0


class LockedError(VlmbatchError):
    """Another run holds the lock of this output file."""

    exit_code = 75


class Busy(VlmbatchError):
    """A session has as many waiting calls as it may have; try again later."""


class SessionClosed(VlmbatchError):
    """The session was closed before the call had its answer."""
