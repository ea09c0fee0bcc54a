"""Ollama over its native /api/chat, the one route that takes num_ctx, keep_alive, think and truncate."""

import asyncio
import ipaddress
import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import ollama

from vlmbatch.backends.wire import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    count,
    is_loopback,
    only_model,
    reply_object,
    spliced,
    unknown_model,
)
from vlmbatch.classify import check_answer
from vlmbatch.errors import BackendError, FatalBackendError, RejectedError, TransientError, UnavailableError
from vlmbatch.options import redact
from vlmbatch.records import Completion, Endpoint, Generation, Request, Usage

PULL_HINT = "get one with: ollama pull qwen2.5vl"


def host_url(host: str) -> str:
    """The URL that OLLAMA_HOST stands for, read as Ollama reads it (envconfig.Host in its source).

    The scheme may be left out; the port is 11434, or 80 and 443 after http:// and https://; a path is
    kept; 0.0.0.0 and ::, which a server listens on, are this machine for a client.
    """
    scheme, found, rest = host.strip().strip("\"'").partition("://")
    if not found:
        scheme, rest = "http", scheme
        port = "11434"
    else:
        port = "443" if scheme == "https" else "80"
    address, _, path = rest.partition("/")
    name, colon, typed = address.rpartition(":")
    if not colon or typed.endswith("]") or ("[" not in address and ":" in name):
        name, typed = address, port
    name = name.strip("[]") or "127.0.0.1"
    if not (typed.isdigit() and int(typed) <= 65535):
        typed = port
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(ip), str(ip))
        name = f"[{name}]" if ":" in name else name
    path = path.strip("/")
    return f"{scheme}://{name}:{typed}" + (f"/{path}" if path else "")


class _Client(ollama.AsyncClient):
    """The ollama package's client with one more call: a body of bytes out, the whole reply back.

    The package's own chat() encodes the image on the event loop, does not take `truncate`, and drops
    the headers of an error, so that Retry-After is lost.
    """

    async def call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        reply: httpx.Response = await self._client.request(method, path, content=body)
        return reply

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class OllamaBackend:
    """An Ollama server. The options are the same in every request, since others reload the model."""

    name = "ollama"
    concurrency = 2  # OLLAMA_NUM_PARALLEL is 1 by default; the second request waits at the server

    def __init__(
        self, url: str, *, model: str | None, api_key: str | None, timeout_s: float, keep_alive: str | None
    ) -> None:
        """`url` as from host_url; `model` None takes the only one that sees; `timeout_s` is per request."""
        self.url = url
        self.place = redact(url)
        self._model = model
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._keep_alive = keep_alive
        self._thinks = False
        self._client = self._connect()

    def _connect(self) -> _Client:
        return _Client(
            self.url,
            headers={"authorization": f"Bearer {self._api_key}"} if self._api_key else None,
            trust_env=not is_loopback(self.url),
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def preflight(self) -> Endpoint:
        """Find the model and whether it can see; see protocols.Backend."""
        models = await self._models()
        if self._model is None:
            seeing = [name for name in models if "vision" in await self._capabilities(name, models[name])]
            self._model = only_model(seeing, self.place, PULL_HINT)
        shown = await self._show(self._model, models)
        capabilities = shown.get("capabilities")
        notes: tuple[str, ...] = ()
        if capabilities is None:
            notes = (f"this Ollama does not tell whether {self._model} can see; version 0.6.4 and later do",)
        elif "vision" not in capabilities:
            raise FatalBackendError(
                f"the model {self._model} at {self.place} cannot see images; "
                f"choose a vision model with --model, or {PULL_HINT}",
                kind="no_vision",
            )
        self._thinks = "thinking" in (capabilities or ())
        return Endpoint(
            backend=self.name,
            url=self.place,
            model=self._model.removesuffix(":latest"),  # the same model, however it was typed
            digest=_digest(self._model, models),
            context=_context(shown),
            notes=notes,
        )

    async def probe(self) -> None:
        """Whether it listens again; see protocols.Backend."""
        try:
            await self._json("GET", "/api/version")
        except (FatalBackendError, RejectedError):
            return  # it answers; what it thinks of this question does not matter here

    async def complete(self, request: Request) -> Completion:
        """Ask once; see protocols.Backend."""
        image = request.images[0]
        body = spliced(lambda mark: self._payload(request, mark), image.data)
        reply = await self._json("POST", "/api/chat", body)
        message = reply.get("message") or {}
        text, thinking = message.get("content"), message.get("thinking") or ""
        reason = reply.get("done_reason")
        check_answer(text, reason, done=reply.get("done") is True, thinking=thinking)
        return Completion(
            text=text or "",
            model=(reply.get("model") or self._model or "").removesuffix(":latest"),
            finish_reason=reason or "stop",
            usage=Usage(
                input_tokens=count(reply.get("prompt_eval_count")),
                output_tokens=count(reply.get("eval_count")),
            ),
            thinking=len(thinking),
        )

    def _payload(self, request: Request, image: str) -> dict[str, Any]:
        system = [{"role": "system", "content": request.system}] if request.system else []
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [*system, {"role": "user", "content": request.prompt, "images": [image]}],
            "stream": False,
            "options": _options(request.generation),
            "truncate": False,  # a prompt that does not fit is an error, not an answer to half of it
        }
        if self._keep_alive:
            payload["keep_alive"] = self._keep_alive
        if self._thinks or request.generation.thinking is False:
            payload["think"] = bool(request.generation.thinking)
        return payload

    async def _models(self) -> dict[str, dict[str, Any]]:
        """The listed models by name."""
        listed = (await self._json("GET", "/api/tags")).get("models") or []
        return {str(m.get("name") or m.get("model")): m for m in listed}

    async def _capabilities(self, name: str, listed: Mapping[str, Any]) -> list[str]:
        """What this model can do; older servers tell it only one by one."""
        known = listed.get("capabilities")
        if known is None:
            known = (await self._json("POST", "/api/show", json.dumps({"model": name}).encode())).get(
                "capabilities"
            )
        return list(known or ())

    async def _show(self, name: str, models: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._json("POST", "/api/show", json.dumps({"model": name}).encode())
        except FatalBackendError as error:
            if error.kind not in ("model_not_found", "wrong_url"):
                raise
            raise unknown_model(name, models, self.place, f"or: ollama pull {name}") from error

    async def _json(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._client.call(method, path, body)
        except TimeoutError as error:
            raise TransientError(f"no answer within {self._timeout_s:g} s", kind="timeout") from error
        except httpx.PoolTimeout as error:  # httpcore loses connections of cancelled requests (its #830)
            await self._client.aclose()
            self._client = self._connect()
            raise TransientError("the connection pool was full", kind="connection") from error
        except httpx.TransportError as error:
            raise _transport_error(error, self.place) from error
        return reply_object(reply.status_code, reply.text, reply.headers)


def _transport_error(error: httpx.TransportError, url: str) -> BackendError:
    text = str(error) or type(error).__name__
    if isinstance(error.__cause__, ssl.SSLError) or "SSL" in text or "CERTIFICATE" in text:
        return FatalBackendError(
            f"no secure connection to {url}: {text}; check http or https in the URL, and the certificate",
            kind="wrong_url",
        )
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return UnavailableError(
            f"no connection to Ollama at {url}: {text}; start it with: ollama serve, "
            "or say where it is with --base-url or OLLAMA_HOST"
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return FatalBackendError(f"{url} is no URL that can be asked: {text}", kind="wrong_url")
    return TransientError(f"the connection to {url} was lost: {text}", kind="connection")


def _options(generation: Generation) -> dict[str, Any]:
    options: dict[str, Any] = {"num_predict": generation.max_tokens, "temperature": generation.temperature}
    if generation.seed is not None:
        options["seed"] = generation.seed
    if generation.num_ctx is not None:
        options["num_ctx"] = generation.num_ctx
    return options


def _digest(name: str, models: Mapping[str, Mapping[str, Any]]) -> str | None:
    listed = models.get(name) or models.get(f"{name}:latest") or {}
    digest = listed.get("digest")
    return str(digest) if digest else None


def _context(shown: Mapping[str, Any]) -> int | None:
    info = shown.get("model_info") or {}
    lengths = [v for k, v in info.items() if k.endswith(".context_length") and isinstance(v, int)]
    return lengths[0] if lengths else None
