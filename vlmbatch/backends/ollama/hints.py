"""The helper requests to an Ollama server: its version, its models, and the facts of each model."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from vlmbatch.backends.http.hints import AT_ONCE, MOST_MODELS, Hint, hint, needs_model, reason_of
from vlmbatch.backends.http.transport import Transport
from vlmbatch.backends.http.wire import only_model
from vlmbatch.backends.ollama.replies import capabilities_of, context_of, facts_in
from vlmbatch.backends.values import mappings, string, version
from vlmbatch.errors import BackendError, FatalBackendError

PULL_HINT = "get one with: vlmbatch pull qwen2.5vl"

Models = Mapping[str, Mapping[str, Any]]
"""Facts about models, by their name."""


class OllamaHints:
    """Sends the helper requests to one Ollama server; each method raises only the errors of hints.hint."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._is_slow = False
        self._loaded_timeout: Hint | None = None

    async def version(self) -> str | None:
        """The version of the server; None if it does not report one, or the request fails."""
        try:
            reply = await self._hint("GET", "/api/version")
        except BackendError:
            return None
        return version(reply.object.get("version"))

    async def tags(self) -> Hint:
        """The reply to the request for the list of models; see `listed_models`.

        Raises:
            FatalBackendError: this is llama.cpp's server, which has the same route for its list.
        """
        tags = await self._hint("GET", "/api/tags")
        if any(each.get("owned_by") == "llamacpp" for each in mappings(tags.object.get("data"))):
            raise FatalBackendError(
                f"{self._transport.place} is llama.cpp's server and not Ollama; use --backend llama-server",
                kind="wrong_url",
            )
        return tags

    async def loaded(self) -> Hint:
        """The reply to the request for the loaded models; if one does not come in time, it is the last."""
        if self._loaded_timeout is not None:
            return self._loaded_timeout
        reply = await self._hint("GET", "/api/ps")
        if _is_timeout(reply):
            self._loaded_timeout = reply
        return reply

    async def show(self, name: str) -> Hint:
        """The reply to the request for the facts of a model."""
        body = json.dumps({"model": name}).encode("ascii")
        return await self._hint("POST", "/api/show", body)

    async def show_and_version(self, name: str, tags: Hint) -> tuple[Hint, str | None]:
        """The reply of `show` and the version of the server; both requests are sent at the same time.

        A server without the route of `tags` is not Ollama, and gets no request for its version.
        """
        if _has_no_list(tags):
            return await self.show(name), None
        version = asyncio.create_task(self.version())
        try:
            return await self.show(name), await version
        finally:
            version.cancel()

    async def show_all(self, models: Models) -> dict[str, Mapping[str, Any]]:
        """The facts of each model whose list entry lacks some; empty for the others and after failures."""
        facts = await asyncio.gather(*(self._missing(name, models[name]) for name in models))
        return dict(zip(models, facts, strict=True))

    async def _missing(self, name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        if capabilities_of(entry) is not None and context_of(entry):  # newer versions list both
            return {}
        async with self._turns:
            if self._is_slow:  # one reply was too slow: the others would be, too
                return {}
            reply = await self.show(name)
            self._is_slow = self._is_slow or _is_timeout(reply)
            return facts_in(reply.object)

    async def only_model(self, tags: Hint) -> str:
        """The only listed model that sees or, if no model is known to see, the only one that may.

        Raises:
            BackendError: there is no list or no such model.
            ConfigError: there are several.
        """
        error = list_error(tags, self._transport.place)
        if error is not None:
            raise needs_model(error)
        models = listed_models(tags)
        shown = await self.show_all(models)
        known = {name: capabilities_of(shown[name]) or capabilities_of(models[name]) for name in models}
        seeing = [name for name, words in known.items() if "vision" in (words or ())]
        maybe = [name for name, words in known.items() if words is None]
        return only_model(seeing or maybe, self._transport.place, PULL_HINT)

    async def _hint(self, method: str, path: str, body: bytes | None = None) -> Hint:
        url = f"{self._transport.url}{path}"
        return await hint(self._transport, method, url, (body,) if body else ())


def _is_timeout(reply: Hint) -> bool:
    return reply.error is not None and reply.error.kind == "timeout"


def _has_no_list(tags: Hint) -> bool:
    """Whether the server has no route for Ollama's list of models."""
    return tags.status in (404, 405)


def list_error(tags: Hint, place: str) -> BackendError | None:
    """Why there is no list of models, for a run that needs one; None if there is a list."""
    if tags.error is None or not _has_no_list(tags):
        return tags.error
    return FatalBackendError(
        f"{place} is not an Ollama server: {reason_of(tags.error)}; for another server use --backend vllm or "
        "--backend openai, else check --base-url",
        kind="wrong_url",
    )


def listed_models(tags: Hint) -> dict[str, Mapping[str, Any]]:
    """The models in a reply to /api/tags."""
    entries = mappings(tags.object.get("models"))[:MOST_MODELS]
    named = {string(entry.get("name")) or string(entry.get("model")): entry for entry in entries}
    return {name: entry for name, entry in named.items() if name}
