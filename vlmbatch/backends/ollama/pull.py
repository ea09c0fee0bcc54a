"""How Ollama is let fetch a model, what it says meanwhile, and what its refusals mean."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vlmbatch.backends.classify import classify_error, error_in
from vlmbatch.backends.http.transport import Reply, Transport
from vlmbatch.backends.http.wire import count, mapping, words
from vlmbatch.errors import BackendError, FailureKind, FatalBackendError, TransientError

PATH = "/api/pull"
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

    def take(self, told: Mapping[str, Any]) -> Pulled:
        """How far the whole is, now that this is told of one layer, or of none."""
        digest, total = words(told.get("digest")), count(told.get("total"))
        if digest and total:
            completed = min(count(told.get("completed")), total)
            self._before.setdefault(digest, completed)
            self._totals[digest], self._completed[digest] = total, completed
        completed = sum(self._completed.values())
        return Pulled(
            status=words(told.get("status")),
            completed=completed,
            total=sum(self._totals.values()),
            fetched=max(0, completed - sum(self._before.values())),
        )


async def follow(
    transport: Transport, name: str, hear: Callable[[Pulled], None], *, silence_s: float
) -> None:
    """Let the Ollama there fetch a model, and return when it has it whole and checked.

    The package's own pull() is not used: it keeps neither status nor headers of an error, and raises
    ValueError for a line that is no JSON, as a proxy may send.

    Raises:
        FatalBackendError: there is no such model, or no Ollama, or it cannot take the model.
        TransientError: it broke off; Ollama keeps what it has, and goes on from there.
        UnavailableError: nobody is there.
    """
    layers, ended = _Layers(), False

    def take(line: bytes) -> None:
        nonlocal ended
        told = _object(line)
        if (error := error_in(told)) is not None:
            raise _refusal(transport.masked(error), name, transport.place)
        if told:
            step = layers.take(told)
            ended = ended or step.status == ENDED
            hear(step)

    body = json.dumps({"model": name, "stream": True}).encode("ascii")
    reply = await transport.follow("POST", f"{transport.url}{PATH}", (body,), take, silence_s=silence_s)
    if reply.status != 200:
        raise _refused(reply, name, transport)
    if not ended:
        raise TransientError(f"{transport.place} stopped telling how the pull goes", kind="connection")


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(line)) if line.strip() else {}
    except (ValueError, RecursionError):
        raise TransientError("the reply to a pull is not what Ollama sends", kind="bad_response") from None


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
