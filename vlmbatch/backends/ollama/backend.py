"""The Ollama backend; its native /api/chat is the only route with num_ctx, keep_alive, think and truncate."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Self

from vlmbatch.backends.adaptation import Adaptation, OptionalParameters
from vlmbatch.backends.classify import attach_cost, check_answer
from vlmbatch.backends.classify.refusals import Omissions
from vlmbatch.backends.classify.thoughts import without_thinking
from vlmbatch.backends.classify.token_limits import TokenLimits
from vlmbatch.backends.confirm import confirm
from vlmbatch.backends.http.hints import Hint
from vlmbatch.backends.http.reply_limit import LARGEST, ReplyLimit
from vlmbatch.backends.http.transport import PLAIN, Transport
from vlmbatch.backends.http.wire import BodyTemplate, unknown_model
from vlmbatch.backends.logprobs import logprobs_in, logprobs_parameters
from vlmbatch.backends.ollama.hints import OllamaHints, list_error, listed_models
from vlmbatch.backends.ollama.loaded import loaded_models
from vlmbatch.backends.ollama.models import facts_of
from vlmbatch.backends.ollama.names import entry_of, full_name
from vlmbatch.backends.ollama.options import is_unload, unknown_names
from vlmbatch.backends.ollama.pull import Pulled, follow
from vlmbatch.backends.ollama.replies import (
    architecture_of,
    busy_s,
    capabilities_of,
    context_of,
    cut_prompt,
    message_in,
    reload_s,
    remote_note,
    vision_note,
)
from vlmbatch.backends.ollama.rivals import why_slow
from vlmbatch.backends.values import count, string, unusable
from vlmbatch.config.request import RequestOptions
from vlmbatch.errors import BadAnswerError, FatalBackendError, RejectedError, TransientError
from vlmbatch.finish_reasons import is_cut, reason_in
from vlmbatch.protocols import Tell, quiet
from vlmbatch.records import Completion, Endpoint, Generation, ModelFacts, Request, Usage

VERSION = "/api/version"
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "think": ("think", "thinking"),
    **{name: (name,) for name in ("truncate", "keep_alive", "temperature", "seed")},
}
"""The parameters that vlmbatch sends by itself and that a server may refuse, with their names there."""
UNLOAD_S = 10.0
SERVER_HINT = "start Ollama with: ollama serve, or set its URL with --base-url or OLLAMA_HOST"


class OllamaBackend:
    """An Ollama server. Every request has the same options, since different options reload the model."""

    name = "ollama"
    concurrency = 2  # OLLAMA_NUM_PARALLEL is 1 by default; the second request waits at the server

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        api_key: str | None,
        timeout_s: float,
        keep_alive: str | None,
        wire: RequestOptions = PLAIN,
        options: Mapping[str, Any] = NO_OPTIONS,
        given: frozenset[str] = frozenset(),
    ) -> None:
        """`url` comes from host_url; `model` None means the only vision model; `timeout_s` is per request.

        `options` are sent with each request in addition to the options of other flags; None leaves one out.
        `given` are the parameters of the user, which are sent even if Ollama refuses them.
        """
        self._body_template = BodyTemplate(self._payload)
        self._transport = Transport(url, api_key, timeout_s=timeout_s, hint=SERVER_HINT, wire=wire)
        self.url, self.place = self._transport.url, self._transport.place
        self._hints = OllamaHints(self._transport)
        self._model = model
        self._timeout_s = timeout_s
        self._keep_alive = keep_alive
        self._own = dict(options)
        self._adaptation = Adaptation(OptionalParameters(names=OPTIONAL, omissions=Omissions(given=given)))
        self._thinks = False
        self._loaded = False
        self._most_context: int | None = None
        self._asked_context: int | None = None

    def masked(self, text: str) -> str:
        """The text without secrets; see protocols.Backend."""
        return self._transport.without_keys(text)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.__aexit__(*exc)

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """Find the model and whether it has vision; see protocols.Backend."""
        tags = await self._hints.tags()
        if self._model is None:
            self._model = await self._hints.only_model(tags)
        shown, version = await self._hints.show_and_version(self._model, tags)
        listed = entry_of(self._model, listed_models(tags))
        if tags.may_be_loading or shown.may_be_loading or (shown.error is not None and not listed):
            await self._confirm(self._model, tags, shown, tell)
        capabilities = capabilities_of(shown.object) or capabilities_of(listed)
        self._thinks = "thinking" in (capabilities or ())
        self._most_context = context_of(shown.object) or context_of(listed)
        return Endpoint(
            backend=self.name,
            url=self.place,
            model=self._model.removesuffix(":latest"),  # the same model with and without the tag
            digest=string(listed.get("digest")) or None,
            context=self._most_context,
            architecture=architecture_of(shown.object) or architecture_of(listed),
            version=version,
            sees=None if capabilities is None else "vision" in capabilities,
            notes=(
                *self._transport.notes,
                *remote_note(self._model, shown.object, listed),
                *unknown_names(self._own),
                *tags.notes,
                *(shown.notes or vision_note(self._model, capabilities)),
            ),
        )

    async def has(self, name: str) -> bool:
        """Whether the server, which is up, lists this model; False also if it sends no list.

        Raises:
            UnavailableError: it is down, or loading.
            TransientError: it sends neither a list nor its version.
            FatalBackendError: it is llama.cpp's server.
        """
        tags = await self._hints.tags()
        may_be_down = tags.may_be_loading or isinstance(tags.error, TransientError)
        if tags.error is not None and may_be_down and await self._hints.version() is None:
            raise tags.error
        return bool(entry_of(name, listed_models(tags)))

    async def models(self) -> list[ModelFacts]:
        """All models of the server; see protocols.Catalogue."""
        tags = await self._hints.tags()
        error = list_error(tags, self.place)
        if error is not None:
            raise error
        models = listed_models(tags)
        return facts_of(models, self.place, await self._hints.show_all(models), await self._hints.loaded())

    async def pull(self, name: str, on_progress: Callable[[Pulled], None], *, silence_s: float) -> None:
        """Let Ollama download a model, and report its progress; see pull.follow."""
        await follow(self._transport, name, on_progress, silence_s=silence_s)

    async def probe(self) -> None:
        """Check that the server answers; see protocols.Backend."""
        try:
            await self._transport.fetch_json("GET", f"{self.url}{VERSION}")
        except (FatalBackendError, RejectedError):
            return  # any answer shows that the server is up

    async def listens(self) -> bool:
        """Whether the server accepts connections; see protocols.Backend."""
        return await self._transport.listens()

    async def load(self) -> None:
        """Return None: Ollama does not report its queue; see protocols.Backend."""

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """Load the model with the options of the run; see protocols.Backend."""
        began = time.monotonic()
        self._asked_context = generation.num_ctx or count(self._own.get("num_ctx")) or None
        keep_alive = {} if is_unload(self._keep_alive) else self._keep_alive_option()
        options = {"options": self._options(generation), **keep_alive}
        try:
            await self._chat_without_messages(options, deadline_s)
        except (RejectedError, BadAnswerError):
            return 0.0  # old versions refuse an empty chat; the first request loads the model then
        self._loaded = True
        return time.monotonic() - began

    async def why_slow(self) -> str | None:
        """Which loaded models may delay a request; see protocols.ExplainsWaits."""
        loaded = await loaded_models(self._hints)
        return why_slow(loaded, (self._model or "").removesuffix(":latest"), self._asked_context)

    async def unload(self) -> None:
        """Unload the model; see protocols.Backend."""
        await self._chat_without_messages({"keep_alive": 0}, UNLOAD_S)

    async def _chat_without_messages(self, options: Mapping[str, Any], deadline_s: float) -> None:
        """Load or unload the model: Ollama does so if a chat has no messages."""
        body = json.dumps({"model": self._model, "messages": [], "stream": False, **options}).encode("ascii")
        await self._transport.fetch_json("POST", f"{self.url}/api/chat", (body,), deadline_s)

    def _keep_alive_option(self) -> dict[str, Any]:
        if not self._keep_alive or "keep_alive" in self._form.refused:
            return {}
        return {"keep_alive": _duration(self._keep_alive)}

    def _options(self, generation: Generation) -> dict[str, Any]:
        options = self._own | {n: v for n, v in _options(generation).items() if n not in self._own}
        refused = self._form.refused - generation.given
        return {name: v for name, v in options.items() if v is not None and name not in refused}

    async def complete(self, request: Request) -> Completion:
        """Send one request; see protocols.Backend.

        Parameters that Ollama refuses and that the user did not give are left out.
        """
        warm = self._loaded
        attempts = self._adaptation.attempts(request.generation)
        while not attempts.are_over:
            with attempts:
                reply = await self._send(request)
        self._loaded = True
        message = message_in(reply)
        split = without_thinking(string(message.get("content")), request)
        text, thinking = split.answer, string(message.get("thinking")) + split.thinking
        reason = reason_in(reply.get("done_reason"))
        tokens = count(reply.get("prompt_eval_count"))
        usage = Usage(input_tokens=tokens, output_tokens=count(reply.get("eval_count")))
        limits = await self._limits(request.generation, usage, reason)
        with attach_cost(usage):
            flaws = check_answer(
                text,
                reason,
                done=reply.get("done") is not False,  # servers that only speak like Ollama leave it out
                thinking=thinking,
                accept=request.accept,
                limits=limits,
            )
        logprobs, missing = logprobs_in(
            reply.get("logprobs"), request.generation.logprobs, self._most_tokens(request.generation)
        )
        return Completion(
            text=text,
            model=(string(reply.get("model")) or self._model or "").removesuffix(":latest"),
            finish_reason=reason or "stop",
            usage=usage,
            thinking=len(thinking),
            load_s=reload_s(reply) if warm else 0.0,
            busy_s=busy_s(reply),
            logprobs=logprobs,
            warnings=(
                *split.warnings,
                *flaws,
                *unusable(reply, "prompt_eval_count", "eval_count"),
                *missing,
                *cut_prompt(tokens, request.generation.num_ctx),
                *self._form.warnings(request.generation),
            ),
        )

    async def _send(self, request: Request) -> dict[str, Any]:
        """The reply to this request, without the parameters that this server has refused."""
        deadline_s = request.deadline_s or self._timeout_s
        body = self._body_template.fill(request, self._form)
        tokens = self._most_tokens(request.generation)
        most = LARGEST if tokens is None else ReplyLimit.of_answer(tokens, request.generation.logprobs)
        return await self._transport.fetch_json("POST", f"{self.url}/api/chat", body, deadline_s, most)

    @property
    def _form(self) -> OptionalParameters:
        return self._adaptation.form

    async def _limits(self, generation: Generation, usage: Usage, reason: str) -> TokenLimits:
        """The limits of an answer; Ollama is asked for its context only if the answer was cut early."""
        context = generation.num_ctx or count(self._own.get("num_ctx")) or None
        if context is not None and self._most_context is not None:
            context = min(context, self._most_context)
        limits = TokenLimits(usage=usage, max_tokens=generation.max_tokens, context=context)
        if context is None and is_cut(reason) and limits.ended_early:
            limits = replace(limits, context=await self._loaded_context())
        return limits

    def _most_tokens(self, generation: Generation) -> int | None:
        """The limit of an answer in tokens; None if the user leaves it out."""
        return generation.max_tokens if self._own.get("num_predict", 0) is not None else None

    async def _loaded_context(self) -> int | None:
        """The context of the model as Ollama has loaded it; None if it does not report that."""
        loaded = await loaded_models(self._hints)
        name = full_name(self._model or "")
        return next((model.context for model in loaded if full_name(model.name) == name), None)

    def _payload(self, request: Request, image: str) -> dict[str, Any]:
        system = [{"role": "system", "content": request.system}] if request.system else []
        pictures = {"images": [image] * len(request.images)} if image else {}
        payload: dict[str, Any] = {
            "model": self._model,
            "messages": [*system, {"role": "user", "content": request.prompt, **pictures}],
            "stream": False,
            "options": self._options(request.generation),
            "truncate": False,  # a prompt that does not fit is an error, not an answer to a part of it
        }
        payload |= self._keep_alive_option()
        if self._thinks or request.generation.thinking is False:
            payload["think"] = bool(request.generation.thinking)
        payload = {name: value for name, value in payload.items() if name not in self._form.refused}
        if request.generation.schema is not None:
            payload["format"] = json.loads(request.generation.schema)
        return payload | logprobs_parameters(request.generation.logprobs)

    async def _confirm(self, name: str, tags: Hint, shown: Hint, tell: Tell) -> None:
        """Ask a question with a picture; raises a BackendError if the model cannot be used."""
        unlisted = unknown_model(name, listed_models(tags), self.place, f"or: vlmbatch pull {name}")
        doubt = list_error(tags, self.place) or shown.error or unlisted
        try:
            await confirm(self, doubt, tell, timeout_s=self._timeout_s)
        except FatalBackendError as error:
            if error.kind == "model_not_found":
                raise unlisted from error
            raise doubt if error.kind == doubt.kind == "wrong_url" else error from error


def _options(generation: Generation) -> dict[str, Any]:
    options: dict[str, Any] = {"num_predict": generation.max_tokens, "temperature": generation.temperature}
    if generation.seed is not None:
        options["seed"] = generation.seed
    if generation.num_ctx is not None:
        options["num_ctx"] = generation.num_ctx
    return options


def _duration(typed: str) -> str | int:
    """Ollama accepts seconds, and -1 for no limit, only as a number; a string needs a unit."""
    try:
        return int(typed)
    except ValueError:
        return typed
