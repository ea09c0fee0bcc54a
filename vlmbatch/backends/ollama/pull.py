"""How Ollama is let fetch a model, what it says meanwhile, and what its refusals mean."""

import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmbatch.backends.classify import classify_error, error_in
from vlmbatch.backends.http.transport import Reply, Transport
from vlmbatch.backends.http.wire import count, string
from vlmbatch.errors import BackendError, FailureKind, FatalBackendError, TransientError

if TYPE_CHECKING:
    from ollama import ProgressResponse

ENDED = "success"
OTHERS_LOAD = "vLLM and others load their model when they are started (vllm serve MODEL)"
_FATAL: tuple[tuple[str, FailureKind, str], ...] = (
    (
        r"file does not exist|manifest unknown|invalid model name|model is required|not found",
        "model_not_found",
        "check its name: ollama.com/library lists all, as qwen2.5vl:7b",
    ),
    (
        r"newer version|not supported by your version|upgrade",
        "bad_config",
        "update Ollama, and run the same command again",
    ),
    (
        r"unauthori[sz]ed|access denied|forbidden|\b40[13]\b",
        "auth",
        "sign Ollama in where it runs (ollama signin), or check the name",
    ),
    (
        r"no space left|disk quota|read-only file system|permission denied",
        "bad_config",
        "make room where Ollama keeps its models (OLLAMA_MODELS), and run the same command again",
    ),
)
"""Words of a refusal that stands however often it is asked again, in lower case, and what to do then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """How far a pull is: Ollama's own words for what it does, and bytes of all the layers known so far.

    Of the `completed` ones `fetched` came since it was asked for, and the others were there before.
    """

    status: str
    completed: int = 0
    total: int = 0
    fetched: int = 0


class _Layers:
    """Adds up what is told of each layer of a model."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._completed: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def add(self, told: "ProgressResponse") -> Pulled:
        """How far the whole is, now that this is told of one layer, or of none."""
        digest, total = string(told.digest), count(told.total)
        if digest and total:
            completed = min(count(told.completed), total)
            self._before.setdefault(digest, completed)
            self._totals[digest], self._completed[digest] = total, completed
        completed = sum(self._completed.values())
        return Pulled(
            status=string(told.status),
            completed=completed,
            total=sum(self._totals.values()),
            fetched=max(0, completed - sum(self._before.values())),
        )


async def follow(
    transport: Transport, name: str, on_progress: Callable[[Pulled], None], *, silence_s: float
) -> None:
    """Let the Ollama there fetch a model, and return when it has it whole and checked.

    Raises:
        FatalBackendError: there is no such model, or no Ollama, or it cannot take the model.
        TransientError: it broke off; Ollama keeps what it has, and goes on from there.
        UnavailableError: nobody is there.
    """
    layers, ended = _Layers(), False
    async for told in _steps(transport, name, silence_s):
        step = layers.add(told)
        ended = ended or step.status == ENDED
        on_progress(step)
    if not ended:
        raise TransientError(f"{transport.place} stopped telling how the pull goes", kind="connection")


async def _steps(transport: Transport, name: str, silence_s: float) -> "AsyncIterator[ProgressResponse]":
    """What the package's pull() yields, with its errors as ours; raises as `follow` does."""
    with _plain_environment():  # here, since it takes a fifth of a second, which no other command needs
        import ollama

        from vlmbatch.backends.ollama.client import Lines

    def send(method: str, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        url = f"{transport.url}{path}"
        return transport.lines(method, url, (body,), refused, silence_s=silence_s)

    def refused(reply: Reply) -> BackendError:  # the package would drop its headers
        return _refused(reply, name, transport)

    # a stand-in for the URL, which only our transport has to understand
    client = ollama.AsyncClient("http://ollama", transport=Lines(send), trust_env=False)
    try:
        async for told in await client.pull(name, stream=True):
            yield told
    except ollama.ResponseError as error:
        words = error_in({"error": error.error}) or str(error)
        raise _refusal(transport.masked(words), name, transport.place) from error
    except (ValueError, AttributeError, TypeError, RecursionError):  # what it raises for other JSON, or none
        raise TransientError("the reply to a pull is not what Ollama sends", kind="bad_response") from None


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Hide variables that the ollama package stumbles over: it makes a client when it is imported.

    That fails over forms of OLLAMA_HOST that Ollama takes, and over proxies and certificates that a
    client for this machine does not use.
    """
    stumbling = ("OLLAMA_HOST", "SSL_CERT_FILE", "SSL_CERT_DIR")
    names = [name for name in os.environ if name in stumbling or name.upper().endswith("_PROXY")]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _refused(reply: Reply, name: str, transport: Transport) -> BackendError:
    """What a whole reply that is no 200 means."""
    error = error_in(_parsed(reply.body))
    if reply.status in (404, 405) and error is None:
        return not_ollama(transport.place)
    if error is not None and reply.status != 401:
        return _refusal(transport.masked(error), name, transport.place)
    return classify_error(
        reply.status, reply.body.decode("utf-8", errors="replace"), reply.headers, transport.masked
    )


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(told: str, name: str, place: str) -> BackendError:
    """What Ollama's words mean; what it does not say for good may go well the next time."""
    for pattern, kind, way_out in _FATAL:
        if re.search(pattern, told.lower()):
            return FatalBackendError(f"{place} cannot pull {name!r}: {told}; {way_out}", kind=kind)
    return TransientError(f"{place} could not pull {name}: {told}", kind="server_error")


def not_ollama(place: str) -> FatalBackendError:
    """The error for a server that pulls nothing."""
    return FatalBackendError(
        f"{place} is no Ollama, and only Ollama is told to pull: {OTHERS_LOAD}; say where Ollama is with "
        "--base-url",
        kind="wrong_url",
    )
