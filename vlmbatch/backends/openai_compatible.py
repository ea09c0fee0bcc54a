"""The OpenAI chat wire over aiohttp: vLLM, llama.cpp's server, LM Studio, SGLang and hosted ones."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

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
from vlmbatch.records import Completion, Endpoint, Request, Usage

MODEL_HINT = "name a served one with --model"


def api_url(url: str) -> str:
    """The base URL as the API wants it: a bare host gets the /v1 that people forget."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


class OpenAICompatibleBackend:
    """A server of /v1/chat/completions."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "openai",
        model: str | None,
        api_key: str | None,
        timeout_s: float,
        concurrency: int = 8,
        owner: str | None = None,
    ) -> None:
        """`url` ends in /v1; `timeout_s` is per request; `owner` is the `owned_by` its models must have."""
        self.name = name
        # a key goes before a user and password in the URL, and aiohttp refuses both at once
        self.url = redact(url) if api_key else url
        self.place = redact(url)
        self.concurrency = concurrency
        self._model = model
        self._timeout_s = timeout_s
        self._owner = owner
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=not is_loopback(self.url),
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def preflight(self) -> Endpoint:
        """Find the model and, where the server tells, whether it can see; see protocols.Backend."""
        listed = {str(m.get("id")): m for m in await self._models()}
        if self._model is None:
            self._model = only_model(
                (n for n in listed if _sees(listed[n]) is not False), self.place, MODEL_HINT
            )
        entry = listed.get(self._model) or _aliased(self._model, listed)
        if entry is None:
            raise unknown_model(self._model, listed, self.place, MODEL_HINT)
        slots, sees = None, _sees(entry)
        if entry.get("owned_by") == "llamacpp":
            props = await self._json("GET", f"{self.url.removesuffix('/v1')}/props")
            slots = count(props.get("total_slots")) or None
            sees = bool((props.get("modalities") or {}).get("vision"))
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
        )

    async def probe(self) -> None:
        """Whether it answers again; see protocols.Backend."""
        try:
            await self._json("GET", f"{self.url}/models")
        except (FatalBackendError, RejectedError):
            return  # it answers; what it thinks of this question does not matter here

    async def complete(self, request: Request) -> Completion:
        """Ask once; see protocols.Backend."""
        image = request.images[0]
        body = spliced(lambda mark: self._payload(request, mark), image.data)
        reply = await self._json("POST", f"{self.url}/chat/completions", body)
        choice, message = _choice(reply)
        text, thinking = message.get("content"), _thinking(message)
        reason = choice.get("finish_reason")
        check_answer(text, reason, thinking=thinking, refusal=message.get("refusal"))
        usage = reply.get("usage") or {}
        return Completion(
            text=text or "",
            model=reply.get("model") or self._model or "",
            finish_reason=reason or "stop",
            usage=Usage(
                input_tokens=count(usage.get("prompt_tokens")),
                output_tokens=count(usage.get("completion_tokens")),
            ),
            thinking=len(thinking),
        )

    def _payload(self, request: Request, image: str) -> dict[str, Any]:
        """Text before the image, so that a server's prefix cache can reuse what all requests share."""
        generation = request.generation
        system = [{"role": "system", "content": request.system}] if request.system else []
        picture = {"url": f"data:{request.images[0].media_type};base64,{image}"}
        content = [{"type": "text", "text": request.prompt}, {"type": "image_url", "image_url": picture}]
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
        data = (await self._json("GET", f"{self.url}/models")).get("data") or []
        models: list[Mapping[str, Any]] = [m for m in data if isinstance(m, dict)]
        if self._owner and not any(m.get("owned_by") == self._owner for m in models):
            raise UnavailableError(f"{self.place} is not {self._owner}")
        return models

    async def _json(self, method: str, url: str, body: bytes | None = None) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("used outside of its async with")
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(method, url, data=body, allow_redirects=False) as reply,
            ):
                return reply_object(reply.status, await reply.text(errors="replace"), reply.headers)
        except aiohttp.ClientError as error:
            raise _transport_error(error, self.place) from error
        except TimeoutError as error:
            raise TransientError(f"no answer within {self._timeout_s:g} s", kind="timeout") from error


def _transport_error(error: aiohttp.ClientError, url: str) -> BackendError:
    text = str(error) or type(error).__name__
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return FatalBackendError(
            f"no secure connection to {url}: {text}; check http or https in the URL, and the certificate",
            kind="wrong_url",
        )
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UnavailableError(
            f"no connection to {url}: {text}; start the server, or say where it is with --base-url"
        )
    if isinstance(error, aiohttp.InvalidURL):
        return FatalBackendError(f"{url} is no URL that can be asked", kind="wrong_url")
    return TransientError(f"the connection to {url} was lost: {text}", kind="connection")


def _choice(reply: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise TransientError("the reply holds no choices[0].message", kind="bad_response")
    return choice, message


def _thinking(message: Mapping[str, Any]) -> str:
    """What the model thought; vLLM has called it by both names."""
    return str(message.get("reasoning") or message.get("reasoning_content") or "")


def _aliased(name: str, listed: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((m for m in listed.values() if name in (m.get("aliases") or ())), None)


def _sees(model: Mapping[str, Any]) -> bool | None:
    """Whether the listing says that the model takes images; None where it says nothing."""
    modalities = (model.get("architecture") or {}).get("input_modalities")
    return None if modalities is None else "image" in modalities
