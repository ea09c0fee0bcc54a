"""The OpenAI chat wire: vLLM, llama.cpp's server, LM Studio, SGLang and hosted ones."""

from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from vlmbatch.backends.openai_reading import answer_text, by_alias, first_choice, takes_images, thoughts
from vlmbatch.backends.proxies import proxy_note
from vlmbatch.backends.transport import Transport
from vlmbatch.backends.wire import (
    Envelope,
    count,
    mapping,
    mappings,
    only_model,
    unknown_model,
    words,
)
from vlmbatch.classify import check_answer
from vlmbatch.errors import FatalBackendError, UnavailableError
from vlmbatch.records import Completion, Endpoint, Request, Usage

MODEL_HINT = "name a served one with --model"
SERVER_HINT = "start the server, or say where it is with --base-url"


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
        self.concurrency = concurrency
        self._named = name is not None
        self._model = model
        self._timeout_s = timeout_s
        self._owner = owner
        self._envelope = Envelope(self._payload)
        self._transport = Transport(url, api_key, timeout_s=timeout_s, hint=SERVER_HINT)
        self.url = self._transport.url

    @property
    def place(self) -> str:
        """Where requests go; see protocols.Backend."""
        return self._transport.place

    @place.setter
    def place(self, place: str) -> None:
        self._transport.place = place

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.__aexit__(*exc)

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
            props = await self._transport.ask("GET", f"{self.url.removesuffix('/v1')}/props")
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
            architecture=words(entry.get("root")) or None,  # the model behind a name that vLLM was given
            notes=proxy_note(self.url),
        )

    async def probe(self) -> None:
        """Whether it answers again; see protocols.Backend.

        vLLM's /health is the one route that knows of a dead engine; who has none has at least answered.
        """
        reply = await self._transport.exchange("GET", f"{self.url.removesuffix('/v1')}/health")
        if reply.status in (500, 502, 503, 504):
            self._transport.understood(reply)

    async def complete(self, request: Request) -> Completion:
        """Ask once; see protocols.Backend."""
        body = self._envelope.around(request)
        deadline_s = request.deadline_s or self._timeout_s
        reply = await self._transport.ask("POST", f"{self.url}/chat/completions", body, deadline_s)
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
        models = mappings((await self._transport.ask("GET", f"{self.url}/models")).get("data"))
        if self._owner and not any(m.get("owned_by") == self._owner for m in models):
            raise UnavailableError(f"{self.place} is not {self._owner}")
        return models
