"""Sends mutated replies to real backends, and checks the outcomes.

The seeds are the recorded replies of real servers (tests/wire). Hypothesis mutates them.
"""

import asyncio
import gzip
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

from backend_contract import KINDS, question
from hypothesis import strategies as st
from replying import OLLAMA, OPENAI, as_json, chat
from written_results import answered

from vlmbatch.backends.ollama.backend import OllamaBackend
from vlmbatch.endpoints.cost import Budget, MeteredBackend, Prices
from vlmbatch.errors import BackendError, ConfigError, FailureKind
from vlmbatch.protocols import Backend, Catalogue
from vlmbatch.records import Completion, Generation, to_line

WIRE = Path(__file__).parent / "wire"
EVERY = "*"
"""The target of a reply that answers each request."""
QUESTION = replace(question(logprobs=2), accept=frozenset(("length", "loop", "empty")))
NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E400", "-0", "-1", "0.5", "1e-400"),
    *("9" * 400, "9" * 5000, "-" + "9" * 5000, "0." + "9" * 5000, "1e" + "9" * 400),
)
TEXTS = (
    "9",
    "NaN",
    "-5",
    "",
    "x",
    "\\ud83d",
    "error",
    *(1000 * part for part in ("a", "ab ", " ", "{", "[1, ")),
)
LONG = ("a", "ab ", " ", "\\n", "{", "<think>", "`", "[1, ")
ODD = (
    *NUMBERS,
    *(f'"{text}"' for text in TEXTS),
    *(f'"{text * (300_000 // len(text))}"' for text in LONG),
    *("null", "true", "false", "[]", "{}", "[[]]", "[null]", '[{"a": []}]', '{"": null}', '{"error": "x"}'),
    '{"message": "try again in 9999999999999 s"}',
    *("[" * 300 + "]" * 300, "[" * 200_000, '{"a":' * 1000 + "1" + "}" * 1000),
    *(f"[{part * 200_000}0]" for part in ("[],", "{},", "0,")),
)
"""JSON texts, and texts that are nearly JSON."""
TYPES = ("text/event-stream", "text/html", "application/json; charset=hex", "", "\x01", "a" * 4000)
STATUSES = (*(200,) * 8, 201, 204, 206, 301, 307, 400, 401, 404, 407, 408, 413, 422, 429, 500, 503, 529, 999)
WAITS = ("nan", "-1", "1e999", "9" * 4000, "Mon, 01 Jan 99999999999 00:00:00 GMT")
HEADERS = (
    *(f"Retry-After: {wait}" for wait in WAITS),
    *(f"Location: {place}" for place in ("http://[::1", "/api/chat", "http://127.0.0.1:99999999/")),
    *(f"Set-Cookie: {cookie}" for cookie in ("a=b; Max-Age=" + "9" * 400, ";" * 1000)),
    *(f"Content-Encoding: {form}" for form in ("gzip", "br", "x")),
    *("Content-Length: 5", "Content-Length: " + "9" * 40, "Transfer-Encoding: chunked"),
    *(
        "Retry-After-Ms: inf",
        "Content-Type: text/\xff",
        "Keep-Alive: timeout=" + "9" * 400,
        "X: " + "a" * 7000,
    ),
)
WORKS = ("complete", "preflight", "models", "probe", "load", "why_slow", "warm_up", "pull")
CHANGES = ("odd", "odd", "odd", "remove", "wrap", "repeat", "add")
NAMES = ("error", "code", "message", "data", "choices", "usage", "models", "cost", "logprobs")
_MARK = re.compile(r'"#(\d+)#"')


@dataclass(frozen=True, slots=True)
class Seed:
    """A recorded reply."""

    path: str
    status: int
    body: str


def recorded() -> list[Seed]:
    """The recorded replies to the requests that a backend sends, and some that were written by hand."""
    seeds = [
        Seed(each["path"].partition("?")[0], each["status"], each["body"])
        for name in ("ollama", "vllm", "llama_cpp")
        for each in json.loads((WIRE / f"{name}.json").read_text())
        if each["method"] != "HEAD" and not each["path"].endswith("nope")
    ]
    pulled = ({"status": "pulling", "digest": "a", "total": 9, "completed": 4}, {"status": "success"})
    metrics = 'vllm:num_requests_running{a="b"} 3.0\nvllm:num_requests_waiting 2e0\n'
    return [
        *seeds,
        Seed("/api/pull", 200, "\n".join(map(json.dumps, pulled))),
        Seed("/metrics", 200, metrics),
        Seed("/props", 200, '{"total_slots": 4, "modalities": {"vision": true}, "model_ftype": "Q4"}'),
    ]


SEEDS = recorded()


@dataclass(frozen=True, slots=True)
class Case:
    """One reply: the request that it answers, what the backend does, and the bytes."""

    target: str
    kind: str
    work: str
    raw: bytes


@st.composite
def bodies(draw: st.DrawFn, seed: Seed) -> str:
    """The body of a seed with some changes."""
    try:
        value = json.loads(seed.body)
    except ValueError:
        text = seed.body
        for _ in range(draw(st.integers(0, 2))):
            text = _with_number(text, draw(st.integers(0, 10)), draw(st.sampled_from(NUMBERS)))
        return text
    for _ in range(draw(st.integers(0, 3))):
        value = _mutated(value, random.Random(draw(st.integers(0, 2**32))), draw)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    text = _MARK.sub(lambda found: ODD[int(found[1])], text)
    return draw(st.sampled_from(FRAMES))(text)


def _with_number(text: str, at: int, odd: str) -> str:
    numbers = list(re.finditer(r"\d[\d.e]*", text))
    if not numbers:
        return text + odd
    found = numbers[at % len(numbers)]
    return text[: found.start()] + odd + text[found.end() :]


def _mutated(value: Any, chance: random.Random, draw: st.DrawFn) -> Any:
    """The value with one change at a random place; `"#N#"` stands for the odd text of that number."""
    odd = f"#{draw(st.integers(0, len(ODD) - 1))}#"
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.05:
        return odd
    key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed = dict(value) if isinstance(value, dict) else list(value)
    deeper = isinstance(value[key], (dict, list)) and value[key] and chance.random() < 0.8
    match "deeper" if deeper else draw(st.sampled_from(CHANGES)):
        case "deeper":
            changed[key] = _mutated(value[key], chance, draw)
        case "odd":
            changed[key] = odd
        case "remove":
            del changed[key]
        case "wrap":
            changed[key] = [value[key], odd]
        case "repeat":
            return [value] * 50
        case _:
            changed = {**value, chance.choice(NAMES): odd} if isinstance(value, dict) else [*value, odd]
    return changed


def _events(text: str) -> str:
    return f"data: {text}\n\ndata: [DONE]\n\n"


def _deltas(text: str) -> str:
    part = text.replace('"message"', '"delta"')
    return f"event: message\ndata: {part}\n\n: x\n\n" * 3 + "data: [DONE]"


FRAMES = (
    *(str,) * 8,
    *(_events, _deltas),
    lambda text: text + "\n" + text,
    lambda text: text[: len(text) // 2],
    lambda text: "\ufeff" + text,
    lambda text: "{" + '"a": 1, ' + text[1:],
    lambda text: text + "data: x\n\n" * 20_000,
    lambda text: '{"a": 1}\n' * 20_000 + text,
    lambda text: "{" * 100_000 + text,
    lambda text: f'{{"code": 0, "data": {text}}}',
    lambda text: f'{{"error": {json.dumps(text)}}}',
    lambda text: f"<html><title>{text}</title>",
    lambda text: "event: error\ndata:" + text + "\n\n",
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A mutated reply, and what a backend does to receive it."""
    seed = draw(st.sampled_from(SEEDS))
    body = draw(bodies(seed)).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        body = draw(st.binary(max_size=200)) + body[: draw(st.integers(0, 2000))]
    status = draw(st.sampled_from((seed.status, *STATUSES)))
    headers = [draw(st.sampled_from(HEADERS))] if draw(st.integers(0, 3)) == 0 else []
    if draw(st.integers(0, 15)) == 0:
        body, headers = gzip.compress(body * 20, 1), ["Content-Encoding: gzip"]
    kind = draw(st.sampled_from(TYPES)) if draw(st.integers(0, 3)) == 0 else "application/json"
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", "Connection: close"]
    if not any(header.startswith(("Content-Length", "Transfer")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    raw = "\r\n".join((*lines, *headers, "", "")).encode("latin-1") + body
    is_ollama = seed.path.startswith("/api") if seed.path != OPENAI else False
    name = "ollama" if is_ollama else draw(st.sampled_from(("openai", "vllm", "llama-server", "openrouter")))
    answers = seed.path in (OLLAMA, OPENAI)
    work = "complete" if answers and draw(st.integers(0, 3)) else draw(st.sampled_from(WORKS))
    target = EVERY if draw(st.integers(0, 4)) == 0 else seed.path
    return Case(target, name, work, raw)


class Server:
    """Replies to one kind of request with the bytes of the case, and to the others like a usual server."""

    def __init__(self) -> None:
        self.case = Case(EVERY, "openai", "probe", b"")

    @asynccontextmanager
    async def started(self) -> AsyncIterator[str]:
        """Listen on loopback; gives the URL."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?i)content-length: (\d+)", head)
            sent = await reader.readexactly(int(length[1])) if length else b""
            path = head.split(" ")[1].partition("?")[0]
            writer.write(self._reply(path, sent))
            await writer.drain()
        writer.close()

    def _reply(self, path: str, sent: bytes) -> bytes:
        if self.case.target in (EVERY, path):
            return self.case.raw
        return usual(path, sent, "vllm" if self.case.target == "/version" else "llamacpp")


@dataclass
class Fuzzing:
    """The backends, and the outcomes of the replies so far."""

    url: str
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_stall_s: float = 0.0
    backends: dict[str, Backend] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def started(cls, url: str, prices: Path) -> AsyncIterator[Self]:
        """Open the backends for the server at this URL; `prices` is a file that this writes."""
        prices.write_text(json.dumps({"tiny": {"input_cost_per_token": 1, "output_cost_per_token": 1}}))
        one = cls(url)
        async with AsyncExitStack() as stack:
            for name in ("ollama", "openai", "vllm", "llama-server", "openrouter"):
                options = {"api_key": "k" * 20, "timeout": 5.0, "model": "tiny", "logprobs": 2}
                backend = KINDS[name].open(url + KINDS[name].path, **options)
                budget = Budget(1e300, asyncio.Event(), lambda text: None)
                opened = await stack.enter_async_context(backend)
                metered = MeteredBackend(opened, budget, Prices(str(prices)))
                metered._model = "tiny"  # the replies to a preflight are odd
                one.backends[name] = metered
            yield one

    async def meet(self, kind: str, work: str) -> None:
        """Let a backend of this kind do its work at the server.

        Raises AssertionError unless the outcome is allowed.
        """
        backend = self.backends[kind]
        watch = asyncio.ensure_future(self._watch())
        try:
            async with asyncio.timeout(240):
                self.outcomes[f"{work} {await self._work(backend, work)}"] += 1
        except BackendError as error:
            _check_error(error)
            self.outcomes[f"{work} {error.kind}"] += 1
        except ConfigError:
            self.outcomes[f"{work} several models"] += 1
        finally:
            watch.cancel()

    async def _work(self, backend: Backend, work: str) -> str:
        """Do this with the backend; returns `ok`, or `skipped` if this backend cannot do it."""
        inner = backend.inner if isinstance(backend, MeteredBackend) else backend
        if work == "complete":
            _check_completion(await backend.complete(QUESTION))
        elif work == "preflight":
            found = await inner.preflight()
            facts = [found.slots, found.context, found.notes, found.sees, found.version]
            json.dumps(facts, allow_nan=False)
            repr(facts).encode("utf-8")
        elif work == "models" and isinstance(inner, Catalogue):
            repr(await inner.models()).encode("utf-8")
        elif work == "load":
            async with KINDS["vllm"].open(self.url) as fresh:  # one that has not given up asking
                load = await fresh.load()
            assert load is None or 0 <= load.running < 2**60 > load.waiting >= 0
        elif work == "warm_up":
            await inner.warm_up(Generation(), 20.0)
        elif work == "probe":
            await inner.probe()
        elif isinstance(inner, OllamaBackend):
            await (inner.why_slow() if work == "why_slow" else inner.pull("tiny", repr, silence_s=20.0))
        else:
            return "skipped"
        return "ok"

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest_stall_s = max(self.longest_stall_s, time.monotonic() - began)


def usual(path: str, sent: bytes, owner: str) -> bytes:
    """The usual reply of a server, to requests that the fuzzed reply does not answer."""
    known: Mapping[str, object] = {
        "/v1/models": {"data": [{"id": "tiny", "owned_by": owner}]},
        "/props": {"total_slots": 2},
        "/api/tags": {"models": [{"name": "tiny:latest", "details": {}}]},
        "/api/show": {"capabilities": ["vision"]},
        "/api/ps": {"models": []},
        "/api/version": {"version": "0.33.0"},
    }
    raw = as_json(known.get(path, chat(path, "orange" if b"colour" in sent else "A grey cat.")))
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(raw.body)}\r\n\r\n"
    return head.encode() + raw.body


def _check_completion(done: Completion) -> None:
    _strictly(to_line(replace(answered("a.jpg"), completion=done, cost=done.cost).to_record()))
    assert 0 <= done.load_s < 2**53
    assert 0 <= done.busy_s < 2**53


def _check_error(error: BackendError) -> None:
    assert error.kind in get_args(FailureKind)
    assert error.retry_after is None or 0 < error.retry_after <= 900
    _strictly(to_line({"message": str(error), "partial": error.partial, "cost": error.cost}))


def _strictly(line: bytes) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value = json.loads(line, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
