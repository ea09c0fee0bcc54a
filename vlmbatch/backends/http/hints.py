"""Helper requests: they ask a server about itself. A missing or odd reply never ends a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmbatch.backends.http.deadlines import single_deadline
from vlmbatch.backends.http.transport import Transport
from vlmbatch.backends.http.wire import Pieces
from vlmbatch.backends.values import mapping
from vlmbatch.errors import BackendError, TransientError, UnavailableError

PROXY_LOGIN = 407
"""The status with which a proxy refuses every request, before the server gets it."""
AT_ONCE = 8
"""Simultaneous requests about single models; for each of them Ollama reads a file."""
MOST_MODELS = 10_000
"""More models of a list are not read; the longest known lists have a few thousand."""
HINT_S = 6.0
"""Time limit of a helper request in seconds; longer than CONNECT_TIMEOUT_S, whose error says more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """The status and JSON `value` of the reply to a helper request, or the `error` if it failed."""

    asked: str
    """Method and URL of the request."""
    status: int | None = None
    value: object = None
    error: BackendError | None = None

    @property
    def object(self) -> Mapping[str, Any]:
        """The value if it is a JSON object, else an empty one."""
        return mapping(self.value)

    @property
    def may_be_loading(self) -> bool:
        """Whether the server may answer this request later: it is loading, starting or busy."""
        return isinstance(self.error, UnavailableError)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for the user if the request failed."""
        if self.error is None:
            return ()
        return (f"no usable reply to {reason_of(self.error)}; the run goes on without it",)


NO_HINT = Hint(asked="")
"""The result of a request that was not necessary."""


async def hint(
    transport: Transport, method: str, url: str, body: Pieces = (), *, lists: bool = False
) -> Hint:
    """Send a helper request; `lists`: the reply may also be a JSON list.

    Raises:
        UnreachableError: no connection can be opened.
        UnavailableError: the proxy opens no connection.
        FatalBackendError: no request reaches the server with these options (TLS, proxy, URL).
    """
    asked = f"{method} {url}"
    try:
        async with single_deadline(HINT_S):
            reply = await transport.exchange(method, url, body)
    except TimeoutError:
        silent = TransientError(f"{asked}: no reply within {HINT_S:g} s", kind="timeout")
        return Hint(asked=asked, error=silent)
    except TransientError as error:
        return _failed(asked, error)
    try:
        return Hint(asked=asked, status=reply.status, value=await transport.value(reply, lists=lists))
    except BackendError as error:
        if reply.status == PROXY_LOGIN and transport.has_proxy:
            raise
        return _failed(asked, error, reply.status)


def reason_of(error: BackendError) -> str:
    """The text of an error without its advice; the run does not need this request."""
    return str(error).partition("; ")[0]


def needs_model(error: BackendError) -> BackendError:
    """The error of a list of models, for a run that needs the list because no option names a model."""
    error.args = (f"{error}; or name the model with --model, which needs no list",)
    return error


def _failed(asked: str, error: BackendError, status: int | None = None) -> Hint:
    error.args = (f"{asked}: {error}",)
    return Hint(asked=asked, status=status, error=error.with_traceback(None))  # its frames hold the reply
