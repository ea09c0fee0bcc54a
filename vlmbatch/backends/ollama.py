"""Ollama over its native /api/chat, the one route that takes num_ctx, keep_alive, think and truncate."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

import httpx

from vlmbatch.backends.access import Access
from vlmbatch.backends.deadlines import Deadlines
from vlmbatch.backends.ollama_client import Client, Journey
from vlmbatch.backends.ollama_reading import (
    capabilities_of,
    context_of,
    cut_prompt,
    entry_of,
    leaving,
    reload_s,
)
from vlmbatch.backends.wire import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    POOL_TIMEOUT_S,
    count,
    in_brief,
    is_loopback,
    lost,
    mapping,
    mappings,
    no_answer,
    no_connection,
    no_secure_connection,
    only_model,
    proxy_note,
    reply_object,
    spliced,
    unknown_model,
    words,
)
from vlmbatch.classify import check_answer
from vlmbatch.errors import BackendError, ConfigError, FatalBackendError, RejectedError
from vlmbatch.options import redact
from vlmbatch.records import Completion, Endpoint, Generation, Request, Usage

TAGS = "/api/tags"
PULL_HINT = "get one with: ollama pull qwen2.5vl"


class OllamaBackend:
    """An Ollama server. The options are the same in every request, since others reload the model."""

    name = "ollama"
    concurrency = 2  # OLLAMA_NUM_PARALLEL is 1 by default; the second request waits at the server

    def __init__(
        self, url: str, *, model: str | None, api_key: str | None, timeout_s: float, keep_alive: str | None
    ) -> None:
        """`url` as from host_url; `model` None takes the only one that sees; `timeout_s` is per request."""
        self._access = Access.to(url, api_key)
        self.url, authorization = self._access.url, self._access.authorization
        self.place = redact(url)
        self._model = model
        self._timeout_s = timeout_s
        self._keep_alive = keep_alive
        self._thinks = False
        self._deadlines = Deadlines()
        self._loaded = False
        try:
            self._client = Client(
                self.url,
                headers={"authorization": authorization} if authorization else None,
                trust_env=not is_loopback(self.url),
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S, pool=POOL_TIMEOUT_S),
                # connections without a limit, which the run's own limiter sets: the pool of httpx 0.28
                # leaks places when requests are cancelled while they connect (encode/httpcore 830)
                limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
            )
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            raise ConfigError(
                f"{self.place} cannot be asked: {in_brief(error)}; check --base-url or OLLAMA_HOST, and the "
                "variables of proxies and certificates (HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE)"
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def preflight(self) -> Endpoint:
        """Find the model and whether it can see; see protocols.Backend."""
        models = await self._models()
        if self._model is None:
            seeing = [name for name in models if await self._sees(name, models[name])]
            self._model = only_model(seeing, self.place, PULL_HINT)
        shown = await self._show(self._model, models)
        capabilities = capabilities_of(shown)
        listed = entry_of(self._model, models)
        # httpx looks at ALL_PROXY, too
        notes = (*proxy_note(self.url, "all"), *leaving(self._model, shown, listed))
        if capabilities is None:
            notes += (f"this Ollama does not tell whether {self._model} can see; version 0.6.4 and later do",)
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
            digest=str(listed.get("digest") or "") or None,
            context=context_of(shown),
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
        body = spliced(lambda mark: self._payload(request, mark), request.images)
        deadline_s = request.deadline_s or self._timeout_s
        warm = self._loaded
        reply = await self._json("POST", "/api/chat", body, deadline_s)
        self._loaded = True
        message = mapping(reply.get("message"))
        text, thinking = words(message.get("content")), words(message.get("thinking"))
        reason = words(reply.get("done_reason"))
        flaws = check_answer(
            text, reason, done=reply.get("done") is True, thinking=thinking, accept=request.accept
        )
        tokens = count(reply.get("prompt_eval_count"))
        return Completion(
            text=text,
            model=(words(reply.get("model")) or self._model or "").removesuffix(":latest"),
            finish_reason=reason or "stop",
            usage=Usage(
                input_tokens=tokens,
                output_tokens=count(reply.get("eval_count")),
            ),
            thinking=len(thinking),
            load_s=reload_s(reply) if warm else 0.0,
            warnings=(*flaws, *cut_prompt(tokens, request.generation.num_ctx)),
        )

    def _payload(self, request: Request, image: str) -> dict[str, Any]:
        system = [{"role": "system", "content": request.system}] if request.system else []
        pictures = {"images": [image]} if image else {}
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [*system, {"role": "user", "content": request.prompt, **pictures}],
            "stream": False,
            "options": _options(request.generation),
            "truncate": False,  # a prompt that does not fit is an error, not an answer to half of it
        }
        if self._keep_alive:
            payload["keep_alive"] = _duration(self._keep_alive)
        if self._thinks or request.generation.thinking is False:
            payload["think"] = bool(request.generation.thinking)
        return payload

    async def _models(self) -> dict[str, Mapping[str, Any]]:
        """The listed models by name."""
        listed = mappings((await self._json("GET", TAGS)).get("models"))
        named = {words(m.get("name")) or words(m.get("model")): m for m in listed}
        return {name: m for name, m in named.items() if name}

    async def _sees(self, name: str, listed: Mapping[str, Any]) -> bool:
        """Whether this model takes images; older servers tell it only one by one."""
        known = capabilities_of(listed)
        if known is None:
            known = capabilities_of(await self._json("POST", "/api/show", _named(name)))
        return "vision" in (known or ())

    async def _show(self, name: str, models: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._json("POST", "/api/show", _named(name))
        except FatalBackendError as error:
            if error.kind not in ("model_not_found", "wrong_url"):
                raise
            raise unknown_model(name, models, self.place, f"or: ollama pull {name}") from error

    async def _json(
        self, method: str, path: str, body: bytes | None = None, deadline_s: float | None = None
    ) -> dict[str, Any]:
        journey = Journey()
        # only questions queue; what is asked about the server itself is answered at once
        limit = self._deadlines.within(deadline_s) if deadline_s else asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                reply = await self._client.call(method, path + self._access.query, body, journey)
        except TimeoutError as error:
            raise no_answer(self.place, deadline_s, self._timeout_s) from error
        except httpx.RequestError as error:
            told = _transport_error(error, self.place, journey.stale)
            raise self._access.without_secrets(told) from error
        if path == TAGS and reply.status_code in (404, 405):
            raise FatalBackendError(
                f"{self.place} is no Ollama: it has no {TAGS}; for another server use --backend vllm or "
                "--backend openai, else check --base-url",
                kind="wrong_url",
            )
        return reply_object(reply.status_code, reply.content, reply.headers, self._access)


def _transport_error(error: httpx.RequestError, url: str, stale: bool) -> BackendError:
    if isinstance(error, httpx.ConnectError) and "SSL" in str(error):
        return no_secure_connection(url, error)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        hint = "start Ollama with: ollama serve, or say where it is with --base-url or OLLAMA_HOST"
        return no_connection(url, error, hint)
    # a reply that is no HTTP is a RemoteProtocolError, too: somebody was there
    heard = isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error)
    return lost(url, error, stale=stale and not heard)


def _options(generation: Generation) -> dict[str, Any]:
    options: dict[str, Any] = {"num_predict": generation.max_tokens, "temperature": generation.temperature}
    if generation.seed is not None:
        options["seed"] = generation.seed
    if generation.num_ctx is not None:
        options["num_ctx"] = generation.num_ctx
    return options


def _duration(typed: str) -> str | int:
    """Ollama takes seconds, and -1 for ever, only as a number; as a text it wants a unit."""
    try:
        return int(typed)
    except ValueError:
        return typed


def _named(name: str) -> bytes:
    return json.dumps({"model": name}).encode("ascii")
