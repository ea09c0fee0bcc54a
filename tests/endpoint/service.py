"""The replies of a healthy test endpoint: each path of each server that it imitates."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from endpoint import questions, wires
from endpoint.context import answer_within
from endpoint.messages import Received, Reply
from endpoint.model import colour, describe
from endpoint.pull import pull
from endpoint.refusals import unknown_route
from endpoint.streams import stream
from endpoint.wires import Model, Refusal


class Service:
    """The servers that the test endpoint imitates, and their models."""

    def __init__(
        self,
        *,
        models: Mapping[str, Model],
        answer: Callable[[Received], str] | None,
        api_key: str | None,
        owned_by: str,
        props: Mapping[str, Any] | None,
        speaks: Iterable[str],
        blind: bool,
    ) -> None:
        self.models = dict(models)
        self.answer = answer or describe
        self.answer_canary: Callable[[Received], str] = colour
        self.api_key = api_key
        self.owned_by = owned_by
        self.props = props
        self.speaks = frozenset(speaks)
        self.blind = blind
        self.refuses: frozenset[str] = frozenset()
        self.refusal: Callable[[Received], Reply | None] = lambda request: None
        self.media: Path | None = None
        self.context: int | None = None
        self.versions = {"ollama": "0.33.0", "vllm": "0.32.0"}

    def _load(self) -> tuple[int, int]:
        """The numbers of questions in progress and in the queue."""
        return 0, 0

    def _reply(self, request: Received) -> Reply:
        """The reply of a healthy server."""
        needs_key = self.api_key is not None and request.path.startswith(("/v1", "/api"))
        if needs_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return wires.as_json(401, {"error": "Unauthorized"})
        try:
            reply = self._route(request)
        except Refusal as refusal:
            return refusal.reply
        return unknown_route(request, "") if reply is None else reply

    def _route(self, request: Received) -> Reply | None:
        """The reply of the server that has this path; None if no server has it."""
        reply = self._ollama(request) if "ollama" in self.speaks else None
        if reply is None and "openai" in self.speaks:
            reply = self._openai(request)
        if reply is None and self.props is not None and (request.method, request.path) == ("GET", "/props"):
            return wires.as_json(200, dict(self.props))
        return reply

    def _ollama(self, request: Received) -> Reply | None:
        match request.method, request.path:
            case (("GET" | "HEAD"), "/"):
                return Reply(status=200, body=b"Ollama is running", content_type="text/plain")
            case "GET", "/api/version":
                return wires.as_json(200, {"version": self.versions["ollama"]})
            case "GET", "/api/tags":
                return wires.tags(self.models)
            case "GET", "/api/ps":
                return wires.loaded(self.models, self.context or wires.CONTEXT_TOKENS // 2)
            case "POST", "/api/show":
                return wires.show(self.models, request)
            case "POST", "/api/pull":
                return pull(self.models, request)
            case "POST", "/api/chat":
                return self._chat(request)
            case _:
                return None

    def _openai(self, request: Received) -> Reply | None:
        match request.method, request.path:
            case "GET", "/health":
                return Reply(status=200, body=b"")
            case "GET", "/version" if self.owned_by == "vllm":
                return wires.as_json(200, {"version": self.versions["vllm"]})
            case "GET", "/metrics":
                return wires.metrics(*self._load())
            case "GET", "/v1/models":
                return wires.model_list(self.models, self.owned_by, self.context or wires.CONTEXT_TOKENS)
            case "POST", "/v1/chat/completions":
                return self._chat(request)
            case _:
                return None

    def _chat(self, request: Received) -> Reply:
        wires.check(request, self.models, self.owned_by, blind=self.blind)
        if not questions.has_messages(request):
            return wires.no_messages(request)
        refused = self.refusal(request)
        if refused is not None:
            return refused
        wires.check_arguments(request, self.refuses)
        texts = questions.encoded_pictures(request.wire, request.body, self.media)
        if len(request.pictures) < len(texts):
            questions.picture(request.wire, texts[len(request.pictures)])
        model = wires.find_at_ollama(self.models, request.model) or next(iter(self.models.values()))
        thinks = model.thinking and request.body.get("think") is not False
        text = self._answer(request)
        if request.body.get("stream", request.wire == "ollama"):
            return stream(request, text)
        if self.context is not None:
            return answer_within(request, text, self.context)
        return wires.chat(request, text, thinking="Let me look." if thinks else None)

    def _answer(self, request: Received) -> str:
        if request.is_canary and not self.blind:
            return self.answer_canary(request)
        if self.blind and request.pictures and self.answer is describe:
            return wires.BLIND
        return self.answer(request)
