"""Bugs of vlmbatch that a run survives: each costs one image, hint or endpoint, and is reported once."""

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace

from vlmbatch.backends.classify.body import clean
from vlmbatch.errors import BackendError, InternalError, ResourceError, VlmbatchError
from vlmbatch.events import BugFound
from vlmbatch.protocols import Observer, Writer
from vlmbatch.records import Failure, Result

LONGEST_TRACE = 8000
"""Only this many characters at the end of a traceback are reported."""


class Bugs:
    """Turns unexpected exceptions into errors of one image or one endpoint, and reports each bug once."""

    def __init__(self, notify: Observer) -> None:
        self._notify = notify
        self._told: set[tuple[object, ...]] = set()
        self.last_trace = ""
        """The traceback of the last bug."""

    def caught(self, error: Exception, about: str, masked: Callable[[str], str] = str) -> InternalError:
        """The error that stands for this bug; `about` is the image or the endpoint, `masked` hides secrets.

        The frames of the exception are dropped, since they may hold pictures. An error that is no bug is
        raised again: one that vlmbatch raises on purpose, or one that the machine's resources caused.
        """
        if isinstance(error, VlmbatchError) or ResourceError.behind(error) is not None:
            raise error
        self.last_trace = masked("".join(traceback.format_exception(error)))[-LONGEST_TRACE:]
        words = clean(masked(traceback.format_exception_only(error)[-1]))
        frames = traceback.extract_tb(error.__traceback__)
        matter = type(error).__name__, *((frames[-1].filename, frames[-1].lineno) if frames else ())
        _forget_traces(error)
        if matter not in self._told:
            self._told.add(matter)
            told = f"{about}: a bug in vlmbatch: {words}; report it; the run goes on"
            self._notify(BugFound(message=told, trace=self.last_trace))
        return InternalError(f"a bug in vlmbatch: {words}")

    def as_backend_error(self, error: Exception, about: str) -> BackendError:
        """A BackendError unchanged, and the error that stands for a bug; see caught()."""
        return error if isinstance(error, BackendError) else self.caught(error, about)

    async def survived(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Do work that the run does not need; an unexpected exception ends only this work."""
        try:
            await work(*args)
        except Exception as error:  # noqa: BLE001  # any exception may come here
            self.caught(error, "the endpoints")

    async def written(self, writer: Writer, result: Result) -> Result:
        """Write this result, or a failure if a bug prevents its record; returns what was written.

        Raises OutputError as Writer.write() does.
        """
        try:
            await writer.write(result)
        except Exception as error:  # noqa: BLE001  # any exception may come here
            bug = self.caught(error, result.id)
            failure = Failure(kind=bug.kind, message=str(bug), retryable=bug.retryable)
            result = replace(result, completion=None, failure=failure)
            await writer.write(result)
        return result


def _forget_traces(error: BaseException | None) -> None:
    """Drop the frames of an exception, and of those before it."""
    while error is not None:
        error.with_traceback(None)
        error = error.__cause__ or error.__context__
