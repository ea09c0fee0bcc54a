"""The helper requests to a server with the OpenAI API: its models, and facts of some engines."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from vlmbatch.backends.http.hints import NO_HINT, Hint, hint
from vlmbatch.backends.http.transport import Transport
from vlmbatch.backends.openai.listing import Listing
from vlmbatch.backends.values import mapping, string, version
from vlmbatch.errors import BackendError, UnavailableError


class OpenAIHints:
    """Sends the helper requests to one server; each method raises only the errors of hints.hint."""

    def __init__(self, transport: Transport, owner: str | None) -> None:
        """`owner` is the required `owned_by` of the models."""
        self._transport = transport
        self._owner = owner

    async def models(self) -> Listing:
        """The models that the server lists.

        Raises:
            BackendError: the server does not show that `owner` owns its models.
        """
        listing = Listing.of(await self._hint(f"{self._transport.url}/models", lists=True))
        if self._owner and not listing.has_owner(self._owner):
            raise listing.error or UnavailableError(f"{self._transport.place} is not {self._owner}")
        return listing

    async def props(self, entry: Mapping[str, Any]) -> Hint:
        """The facts of llama.cpp's server about a listed model that is loaded; empty for another server."""
        state = mapping(entry.get("status")).get("value", "loaded")
        if entry.get("owned_by") != "llamacpp" or state != "loaded":
            return NO_HINT
        query = urlencode({"model": string(entry.get("id"))})  # its router has several models
        return await self._hint(f"{self._root}/props?{query}")

    async def version(self, entry: Mapping[str, Any]) -> str | None:
        """The version of the vLLM server that lists this model; None for other servers and after failures."""
        if entry.get("owned_by") != "vllm":
            return None
        try:
            reply = await self._hint(f"{self._root}/version")
        except BackendError:
            return None
        return version(reply.object.get("version"))

    @property
    def _root(self) -> str:
        """The base URL of the routes outside OpenAI's API."""
        return self._transport.url.removesuffix("/v1")

    async def _hint(self, url: str, *, lists: bool = False) -> Hint:
        return await hint(self._transport, "GET", url, lists=lists)
