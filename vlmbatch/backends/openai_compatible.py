"""The OpenAI chat wire over aiohttp: vLLM, llama.cpp's server, LM Studio, SGLang and hosted ones."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from vlmbatch.backends.access import Access
from vlmbatch.backends.deadlines import Deadlines
from vlmbatch.backends.openai_reading import answer_text, by_alias, first_choice, takes_images, thoughts
from vlmbatch.backends.wire import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
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
from vlmbatch.errors import BackendError, FatalBackendError, UnavailableError
from vlmbatch.options import redact
from vlmbatch.records import Completion, Endpoint, Request, Usage

MODEL_HINT = "name a served one with --model"


def api_url(url: str) -> str:
    """The base URL as the API wants it: a bare host gets the /v1 that people forget."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path.rstrip("/") or "/v1").geturl()


class OpenAICompatibleBackend:
    """A server of /v1/chat/completions."""

    def __init__(
        self,
        url: str,
        *,
        name: str | None = "openai",
        model: str | None,
        api_key: str | None,
        timeout_s: float,
        concurrency: int = 8,
        owner: str | None = None,
    ) -> None:
        """`url` ends in /v1; `timeout_s` is per request; `owner` is the `owned_by` its models must have.

        `name` None is `vllm` where the model says that vLLM owns it, else `openai`.
        """
        self.name = name or "openai"
        self._named = name is not None
        self._access = Access.to(url, api_key)  # aiohttp refuses a key and a login at once
        self.url = self._access.url
        self.place = redact(url)
        self.concurrency = concurrency
        self._model = model
        self._timeout_s = timeout_s
        self._owner = owner
        self._headers = {"Content-Type": "application/json"}
        if self._access.authorization:
            self._headers["Authorization"] = self._access.authorization
        self._deadlines = Deadlines()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_hear_of_reuse)
        trace.on_connection_create_start.append(_hear_of_a_new_one)
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=not is_loopback(self.url),
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def preflight(self) -> Endpoint:
        """Find the model and, where the server tells, whether it can see; see protocols.Backend."""
        listed = {str(m.get("id")): m for m in await self._models()}
        if self._model is None:
            self._model = only_model(
                (n for n in listed if takes_images(listed[n]) is not False), self.place, MODEL_HINT
            )
        entry = listed.get(self._model) or by_alias(self._model, listed)
        if entry is None:
            raise unknown_model(self._model, listed, self.place, MODEL_HINT)
        if not self._named and entry.get("owned_by") == "vllm":
            self.name = "vllm"
        slots, sees = None, takes_images(entry)
        if entry.get("owned_by") == "llamacpp":
            props = await self._json("GET", f"{self.url.removesuffix('/v1')}/props")
            slots = count(props.get("total_slots")) or None
            sees = bool(mapping(props.get("modalities")).get("vision"))
        if sees is False:
            raise FatalBackendError(
                f"the model {self._model} at {self.place} cannot see images; serve a vision model "
                "(llama.cpp: with --mmproj), or name another with --model",
                kind="no_vision",
            )
        return Endpoint(
            backend=self.name,
            url=self.place,
            model=self._model,
            slots=slots,
            context=count(entry.get("max_model_len")) or None,
            notes=proxy_note(self.url),
        )

    async def probe(self) -> None:
        """Whether it answers again; see protocols.Backend.

        vLLM's /health is the one route that knows of a dead engine; who has none has at least answered.
        """
        status, body, headers = await self._exchange("GET", f"{self.url.removesuffix('/v1')}/health")
        if status in (500, 502, 503, 504):
            reply_object(status, body, headers, self._access)

    async def complete(self, request: Request) -> Completion:
        """Ask once; see protocols.Backend."""
        body = spliced(lambda mark: self._payload(request, mark), request.images)
        deadline_s = request.deadline_s or self._timeout_s
        reply = await self._json("POST", f"{self.url}/chat/completions", body, deadline_s)
        choice, message = first_choice(reply)
        text, thinking = answer_text(message), thoughts(message)
        reason = words(choice.get("finish_reason"))
        flaws = check_answer(
            text,
            reason,
            thinking=thinking,
            refusal=words(message.get("refusal")),
            accept=request.accept,
        )
        usage = mapping(reply.get("usage"))
        return Completion(
            text=text,
            model=words(reply.get("model")) or self._model or "",
            finish_reason=reason or "stop",
            usage=Usage(
                input_tokens=count(usage.get("prompt_tokens")),
                output_tokens=count(usage.get("completion_tokens")),
            ),
            thinking=len(thinking),
            warnings=flaws,
        )

    def _payload(self, request: Request, image: str) -> dict[str, Any]:
        """Text before the image, so that a server's prefix cache can reuse what all requests share."""
        generation = request.generation
        system = [{"role": "system", "content": request.system}] if request.system else []
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        for picture in request.images:
            url = {"url": f"data:{picture.media_type};base64,{image}"}
            content.append({"type": "image_url", "image_url": url})
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "stream": False,
        }
        if generation.seed is not None:
            payload["seed"] = generation.seed
        if generation.thinking is False:
            payload["chat_template_kwargs"] = {"enable_thinking": False}
        return payload

    async def _models(self) -> list[Mapping[str, Any]]:
        """What the server lists."""
        models = mappings((await self._json("GET", f"{self.url}/models")).get("data"))
        if self._owner and not any(m.get("owned_by") == self._owner for m in models):
            raise UnavailableError(f"{self.place} is not {self._owner}")
        return models

    async def _json(
        self, method: str, url: str, body: bytes | None = None, deadline_s: float | None = None
    ) -> dict[str, Any]:
        return reply_object(*await self._exchange(method, url, body, deadline_s), self._access)

    async def _exchange(
        self, method: str, url: str, body: bytes | None = None, deadline_s: float | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of whatever is replied."""
        if self._session is None:
            raise RuntimeError("used outside of its async with")
        journey, asked = _Journey(), url + self._access.query
        # only questions queue; what is asked about the server itself is answered at once
        limit = self._deadlines.within(deadline_s) if deadline_s else asyncio.timeout(self._timeout_s)
        try:
            async with (
                limit,
                self._session.request(
                    method, asked, data=body, allow_redirects=False, trace_request_ctx=journey
                ) as reply,
            ):
                journey.reply_began = True
                return reply.status, await reply.read(), reply.headers
        except (aiohttp.ClientError, UnicodeError) as error:
            told = _transport_error(error, self.place, journey.stale)
            raise self._access.without_secrets(told) from error
        except (ValueError, AssertionError) as error:  # how aiohttp refuses a proxy that makes no sense
            raise FatalBackendError(
                f"{self.place} cannot be asked: {in_brief(error)}; check HTTP_PROXY and HTTPS_PROXY",
                kind="bad_config",
            ) from error
        except TimeoutError as error:
            raise no_answer(self.place, deadline_s, self._timeout_s) from error


@dataclass(slots=True)
class _Journey:
    """What aiohttp tells of one request on its way."""

    reused: bool = False
    reply_began: bool = False

    @property
    def stale(self) -> bool:
        """Whether it went over a connection kept from earlier, and heard nothing."""
        return self.reused and not self.reply_began


async def _hear_of_reuse(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


async def _hear_of_a_new_one(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = False  # aiohttp asks again by itself, but for POST


def _transport_error(error: aiohttp.ClientError | UnicodeError, url: str, stale: bool) -> BackendError:
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return no_secure_connection(url, error)
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return no_connection(url, error, "start the server, or say where it is with --base-url")
    if isinstance(error, (aiohttp.InvalidURL, UnicodeError)):  # UnicodeError: a host name no DNS can have
        return FatalBackendError(f"{url} is no URL that can be asked; check --base-url", kind="wrong_url")
    # a reply that is no HTTP is a ClientResponseError: somebody was there
    return lost(url, error, stale=stale and isinstance(error, aiohttp.ClientConnectionError))
