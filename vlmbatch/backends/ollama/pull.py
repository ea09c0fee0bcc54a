"""Lets Ollama download a model, reports the progress, and classifies its refusals."""

import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmbatch.backends.classify import classify_error, error_in
from vlmbatch.backends.http.transport import Reply, Transport
from vlmbatch.backends.values import count, string
from vlmbatch.errors import BackendError, FailureKind, FatalBackendError, TransientError
from vlmbatch.strict_json import LENIENT

if TYPE_CHECKING:
    from ollama import ProgressResponse

ENDED = "success"
MOST_LAYERS = 1000
"""A model has about ten."""
OTHERS_LOAD = "vLLM and other servers load their model when they start (vllm serve MODEL)"
_FATAL: tuple[tuple[str, FailureKind, str], ...] = (
    (
        r"file does not exist|manifest unknown|invalid model name|model is required|not found",
        "model_not_found",
        "check its name: ollama.com/library lists all models, for example qwen2.5vl:7b",
    ),
    (
        r"newer version|not supported by your version|upgrade",
        "bad_config",
        "update Ollama, and run the same command again",
    ),
    (
        r"unauthori[sz]ed|access denied|forbidden|\b40[13]\b",
        "auth",
        "sign in on the machine of Ollama (ollama signin), or check the name",
    ),
    (
        r"no space left|disk quota|read-only file system|permission denied",
        "bad_config",
        "free disk space in the model folder of Ollama (OLLAMA_MODELS), and run the same command again",
    ),
)
"""Patterns of permanent refusals, in lower case, with the kind of failure and a hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """The progress of a pull: Ollama's own status text, and the bytes of all layers reported so far.

    `fetched` counts the bytes of `completed` that this pull has downloaded; the rest was on disk before.
    """

    status: str
    completed: int = 0
    total: int = 0
    fetched: int = 0


class _Layers:
    """Adds up the reported progress of each layer of a model."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        """The completed and all bytes of each layer."""
        self._completed = self._total = self._before = 0

    def add(self, response: "ProgressResponse") -> Pulled:
        """Add a report about one layer, or about none, and return the progress of the whole model.

        Raises ValueError if there are more layers than any model has.
        """
        digest, total = string(response.digest), count(response.total)
        if digest and total:
            completed = min(count(response.completed), total)
            if digest not in self._layers:
                self._before += completed
            before, total_before = self._layers.get(digest, (0, 0))
            self._completed += completed - before
            self._total += total - total_before
            self._layers[digest] = completed, total
        if len(self._layers) > MOST_LAYERS:
            raise ValueError("too many layers")
        return Pulled(
            status=string(response.status),
            completed=self._completed,
            total=self._total,
            fetched=max(0, self._completed - self._before),
        )


async def follow(
    transport: Transport, name: str, on_progress: Callable[[Pulled], None], *, silence_s: float
) -> None:
    """Let Ollama download a model, and return when the model is complete and verified.

    Raises:
        FatalBackendError: the model does not exist, the server is not Ollama, or it cannot store the model.
        TransientError: the pull broke off; Ollama keeps the downloaded part and continues from there.
        UnavailableError: the server is unreachable or busy.
    """
    layers, ended = _Layers(), False
    async for response in _steps(transport, name, silence_s):
        try:
            step = layers.add(response)
        except ValueError as error:
            raise TransientError(
                f"{transport.place} reports {error} for a model", kind="bad_response"
            ) from None
        ended = ended or step.status == ENDED
        on_progress(step)
    if not ended:
        raise TransientError(f"{transport.place} ended the pull without success", kind="connection")


async def _steps(transport: Transport, name: str, silence_s: float) -> "AsyncIterator[ProgressResponse]":
    """The responses of the package's pull(); its errors become the errors of `follow`."""
    with _plain_environment():  # imported here: it takes a fifth of a second, and only a pull needs it
        import ollama

        from vlmbatch.backends.ollama.client import Lines

    async def send(method: str, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        url = f"{transport.url}{path}"
        lines = transport.lines(method, url, (body,), refused, silence_s=silence_s)
        async with aclosing(lines):
            async for line in lines:
                yield _countable(line)

    def refused(reply: Reply) -> BackendError:  # called here, since the package would drop the headers
        return _refused(reply, name, transport)

    # a placeholder URL: the run's transport has the real one
    client = ollama.AsyncClient("http://ollama", transport=Lines(send), trust_env=False)
    try:
        async for response in await client.pull(name, stream=True):
            yield response
    except ollama.ResponseError as error:
        message = error_in({"error": error.error}) or str(error)
        raise _refusal(transport.masked(message), name, transport.place) from error
    except (ValueError, AttributeError, TypeError, RecursionError):  # raised for invalid or unexpected JSON
        raise TransientError(
            "the reply to a pull does not have Ollama's format", kind="bad_response"
        ) from None


def _countable(line: bytes) -> bytes:
    """The line with 0 for each unusable number of bytes, with which the package would end the pull."""
    try:
        step = LENIENT.decode(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):  # the package finds the same error
        return line
    sizes = ("total", "completed")
    counts = {name: count(step[name]) for name in sizes if name in step} if isinstance(step, dict) else {}
    return json.dumps({**step, **counts}).encode("ascii") if counts else line


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Hide environment variables that break the import of the ollama package, which creates a client.

    The import fails for some forms of OLLAMA_HOST that Ollama itself accepts, and for proxies and
    certificates that a client for this machine does not use.
    """
    harmful = ("OLLAMA_HOST", "SSL_CERT_FILE", "SSL_CERT_DIR")
    names = [name for name in os.environ if name in harmful or name.upper().endswith("_PROXY")]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _refused(reply: Reply, name: str, transport: Transport) -> BackendError:
    """The error for a complete reply with another status than 200."""
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
        return LENIENT.decode(body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


def _refusal(message: str, name: str, place: str) -> BackendError:
    """The error for Ollama's message; unless it is known as permanent, a retry may succeed."""
    for pattern, kind, hint in _FATAL:
        if re.search(pattern, message.lower()):
            return FatalBackendError(f"{place} cannot pull {name!r}: {message}; {hint}", kind=kind)
    return TransientError(f"{place} could not pull {name}: {message}", kind="server_error")


def not_ollama(place: str) -> FatalBackendError:
    """The error for a server that is not Ollama and cannot pull a model."""
    return FatalBackendError(
        f"{place} is not an Ollama server, and only Ollama can pull a model: {OTHERS_LOAD}; name the Ollama "
        "server with --base-url",
        kind="wrong_url",
    )
