"""The backend for /v1/chat/completions: vLLM, llama.cpp's server, LM Studio, SGLang and hosted servers."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from vlmbatch.backends.adaptation import Adaptation
from vlmbatch.backends.classify import attach_cost, check_answer
from vlmbatch.backends.classify.thoughts import without_thinking
from vlmbatch.backends.classify.token_limits import TokenLimits
from vlmbatch.backends.confirm import confirm
from vlmbatch.backends.http.hints import AT_ONCE
from vlmbatch.backends.http.reply_limit import LARGEST, ReplyLimit
from vlmbatch.backends.http.transport import PLAIN, Transport
from vlmbatch.backends.http.wire import BodyTemplate, Pieces, unknown_model
from vlmbatch.backends.logprobs import logprobs_in, logprobs_parameters
from vlmbatch.backends.openai.hints import OpenAIHints
from vlmbatch.backends.openai.listing import Listing, only_listed
from vlmbatch.backends.openai.replies import (
    answer_text,
    busy_s,
    context_of,
    facts_of,
    first_choice,
    hosted_note,
    load_in,
    response_format,
    sees_in,
    thoughts,
    used_in,
)
from vlmbatch.backends.openai.request_format import RequestFormat
from vlmbatch.backends.openai.servers import GENERIC, ServerType
from vlmbatch.backends.values import count, mapping, string, version
from vlmbatch.config.request import RequestOptions
from vlmbatch.errors import BackendError, UnreachableError
from vlmbatch.finish_reasons import reason_in
from vlmbatch.images import PreparedImage
from vlmbatch.protocols import Tell, quiet
from vlmbatch.records import Completion, Endpoint, Generation, Load, ModelFacts, Request

MODEL_HINT = "name one of its models with --model"
SERVER_HINT = "start the server, or set its URL with --base-url"
LOAD_S = 5.0
"""How long a server may take to report its queue, in seconds; a later report would be outdated."""


def api_url(url: str) -> str:
    """The base URL for the API: a URL without a path gets the /v1 that users often forget."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path.rstrip("/") or "/v1").geturl()


def file_url(picture: PreparedImage) -> str:
    """The file:// URL of an unchanged picture, for a server on the same disk; empty if it has none."""
    path = picture.file or ""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:  # servers decode the escapes of a URL as UTF-8
        return ""
    return Path(path).absolute().as_uri() if path else ""


class OpenAICompatibleBackend:
    """A server with /v1/chat/completions."""

    def __init__(
        self,
        url: str,
        *,
        server_type: ServerType = GENERIC,
        model: str | None,
        api_key: str | None,
        timeout_s: float,
        owner: str | None = None,
        wire: RequestOptions = PLAIN,
    ) -> None:
        """`url` ends in /v1; `timeout_s` is per request; `owner` is the required `owned_by` of its models.

        Raises:
            ConfigError: the key contains characters that a header cannot carry, or a file of `wire` is
                unusable.
        """
        self.name = server_type.name or "openai"
        self.concurrency = server_type.slots
        self._server_type = server_type
        self._model = model
        self._timeout_s = timeout_s
        self._context: int | None = None
        self._adaptation = Adaptation(server_type.request_format)
        self._may_report_load = server_type.metrics is not False
        self._has_metrics = server_type.metrics is True
        self._extra = wire.extra_arguments
        self._file_urls = wire.file_urls
        self._body_template = BodyTemplate(self._payload)
        self._transport = Transport(url, api_key, timeout_s=timeout_s, hint=SERVER_HINT, wire=wire)
        self._hints = OpenAIHints(self._transport, owner)
        self.url = self._transport.url

    @property
    def place(self) -> str:
        """The URL of the endpoint; see protocols.Backend."""
        return self._transport.place

    @place.setter
    def place(self, place: str) -> None:
        self._transport.place = place

    def masked(self, text: str) -> str:
        """The text without secrets; see protocols.Backend."""
        return self._transport.without_keys(text)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.__aexit__(*exc)

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """Find the model and, if the server reports it, whether it has vision; see protocols.Backend."""
        listing = await self._hints.models()
        if self._model is None:
            self._model = only_listed(listing, self.place, MODEL_HINT)
        entry = self._entry(listing, self._model)
        notes = listing.notes
        if entry is None:
            notes += await self._unlisted(listing, self._model, tell)
            entry = {}
        if self._server_type.name is None and entry.get("owned_by") == "vllm":
            self.name = "vllm"
        self._context = context_of(entry)
        props = await self._hints.props(entry)
        if props.error is not None and props.may_be_loading:
            await confirm(self, props.error, tell, timeout_s=self._timeout_s)
        return Endpoint(
            backend=self.name,
            url=self.place,
            model=self._model,
            slots=count(props.object.get("total_slots")) or None,
            context=self._context,
            architecture=string(entry.get("root")) or None,  # the model behind vLLM's --served-model-name
            version=version(props.object.get("build_info")) or await self._version(entry),
            sees=sees_in(entry, props.object),
            notes=(
                *self._transport.notes,
                *hosted_note(self._server_type.hosted, self.place),
                *notes,
                *props.notes,
            ),
        )

    async def models(self) -> list[ModelFacts]:
        """All models of the server; see protocols.Catalogue."""
        listing = await self._hints.models()
        if listing.error is not None:
            raise listing.error
        name = "vllm" if listing.has_owner("vllm") else self.name
        turns = asyncio.Semaphore(AT_ONCE)

        async def facts(key: str, entry: Mapping[str, Any]) -> ModelFacts:
            async with turns:
                props = await self._hints.props(entry)
            return facts_of(key, entry, props.object, name, self.place)

        return await asyncio.gather(*(facts(key, entry) for key, entry in listing.models.items()))

    @property
    def _format(self) -> RequestFormat:
        return self._adaptation.form

    @property
    def _root(self) -> str:
        """The base URL of the routes outside OpenAI's API."""
        return self.url.removesuffix("/v1")

    async def probe(self) -> None:
        """Check that the server answers; see protocols.Backend.

        Only vLLM's /health detects a dead engine. A server without that route is up if it answers at all.
        """
        reply = await self._transport.exchange("GET", f"{self._root}/health")
        if reply.status in (500, 502, 503, 504):
            self._transport.parse(reply)

    async def listens(self) -> bool:
        """Whether the server accepts connections; see protocols.Backend."""
        return await self._transport.listens()

    async def load(self) -> Load | None:
        """The load from /metrics; see protocols.Backend.

        After a reply without the two numbers the server is not queried again, since some servers log an error
        for each query. A server that has sent them before is queried again after a failure that may pass.
        """
        if not self._may_report_load:
            return None
        load, passes = None, self._has_metrics
        try:
            async with asyncio.timeout(LOAD_S):
                reply = await self._transport.exchange("GET", f"{self._root}/metrics")
        except (BackendError, TimeoutError):
            pass
        else:
            passes = passes and reply.status in (429, 500, 502, 503, 504)
            if reply.status == 200:
                load = load_in(reply.body.decode("utf-8", errors="replace"))
        self._has_metrics = self._has_metrics or load is not None
        self._may_report_load = load is not None or passes
        return load

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """Do nothing: these servers load their model when they start; see protocols.Backend."""
        return 0.0

    async def unload(self) -> None:
        """Do nothing; see protocols.Backend."""

    async def complete(self, request: Request) -> Completion:
        """Send one request, and again without each optional parameter that the server refuses.

        See protocols.Backend.
        """
        attempts = self._adaptation.attempts(request.generation)
        while not attempts.are_over:
            with attempts:
                reply = await self._send(request)
        choice, message = first_choice(reply)
        split = without_thinking(answer_text(message), request)
        text, thinking = split.answer, thoughts(message) + split.thinking
        reason = reason_in(choice.get("finish_reason"))
        used = used_in(reply)
        owes_cost = used.owes_cost or (used.cost is None and self._server_type.reports_cost)
        tokens = mapping(choice.get("logprobs")).get("content")
        limit = self._format.limit
        most = count(self._extra.get(limit.name)) or limit.value(request.generation)
        logprobs, missing = logprobs_in(
            tokens, request.generation.logprobs, None if self._extra else request.generation.max_tokens
        )
        with attach_cost(used.tokens, used.cost, owes_cost=owes_cost):
            flaws = check_answer(
                text,
                reason,
                thinking=thinking,
                refusal=string(message.get("refusal")),
                accept=request.accept,
                limits=TokenLimits(usage=used.tokens, max_tokens=most, context=self._context),
            )
        return Completion(
            text=text,
            model=string(reply.get("model")) or self._model or "",
            finish_reason=reason or "stop",
            usage=used.tokens,
            thinking=len(thinking),
            cost=used.cost,
            owes_cost=owes_cost,
            busy_s=busy_s(reply),
            logprobs=logprobs,
            warnings=(
                *split.warnings,
                *flaws,
                *used.warnings,
                *missing,
                *self._format.warnings(request.generation),
            ),
        )

    async def _send(self, request: Request) -> dict[str, Any]:
        """The reply to this request in the current format."""
        deadline_s = request.deadline_s or self._timeout_s
        return await self._transport.fetch_json(
            "POST",
            f"{self.url}/chat/completions",
            self._body(request),
            deadline_s,
            self._most(request.generation),
        )

    def _most(self, generation: Generation) -> ReplyLimit:
        """The limit of a reply; --extra-body may ask for more tokens, or for more about each."""
        if self._extra:
            return LARGEST
        return ReplyLimit.of_answer(generation.max_tokens, generation.logprobs)

    def _body(self, request: Request) -> Pieces:
        """The request's body; it has file:// URLs if --file-urls is set and possible, else the pictures."""
        if self._file_urls and request.images and all(map(file_url, request.images)):
            return (json.dumps(self._payload(request, "")).encode("ascii"),)
        return self._body_template.fill(request, self._format)

    def _payload(self, request: Request, image: str) -> dict[str, Any]:
        """The body, with text before the image, so that a server's prefix cache can reuse the shared part."""
        system = [{"role": "system", "content": request.system}] if request.system else []
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        for picture in request.images:
            url = f"data:{picture.media_type};base64,{image}" if image else file_url(picture)
            content.append(self._format.picture(url))
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [*system, {"role": "user", "content": content}],
            **self._format.parameters(request.generation),
            **logprobs_parameters(request.generation.logprobs),
            **response_format(request.generation.schema),
        }
        # arguments of the user keep their own order, also those that replace one of ours; null leaves one out
        added = {name: value for name, value in self._extra.items() if value is not None}
        return {name: value for name, value in payload.items() if name not in self._extra} | added

    async def _version(self, entry: Mapping[str, Any]) -> str | None:
        """The version of the vLLM server that lists this model. A hosted server gets no request for it."""
        return None if self._server_type.hosted else await self._hints.version(entry)

    def _entry(self, listing: Listing, name: str) -> Mapping[str, Any] | None:
        """The listed model of this name."""
        entry = listing.find(name)
        if entry is None and self._server_type.hosted:  # OpenRouter does not list NAME:nitro and the like
            return listing.models.get(name.partition(":")[0])
        return entry

    async def _unlisted(self, listing: Listing, name: str, tell: Tell) -> tuple[str, ...]:
        """Find out by a question whether the server has a model that it does not list; returns a note.

        Raises:
            BackendError: it does not have it, or does not answer; see protocols.Backend.preflight.
        """
        missing = unknown_model(name, listing.models, self.place, MODEL_HINT)
        if listing.is_complete and listing.has_owner("llamacpp"):  # it answers under any name
            raise missing
        try:
            done = await confirm(self, listing.error or missing, tell, timeout_s=self._timeout_s)
        except UnreachableError:
            raise
        except BackendError as error:
            if listing.is_complete or error.kind == "model_not_found":
                raise missing from error
            raise
        is_another = done is None or (done.model in listing.models and not self._server_type.hosted)
        if listing.is_complete and is_another:  # LM Studio answers with another model than the one named
            raise missing
        return () if listing.error else (f"{self.place} does not list {name}, but answers requests for it",)
