"""Helpers for the tests of backends: the backends under contract, a picture, a request, a raw server."""

import asyncio
import base64
import hashlib
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from endpoint import Endpoint, Received
from PIL import Image

from vlmbatch.backends.registry import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.config.groups import ImageOptions
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.prepare import prepare
from vlmbatch.protocols import Backend
from vlmbatch.records import Generation, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A --backend, the API format of its endpoint, and the name of the backend that answers."""

    backend: str
    wire: str
    name: str
    path: str = ""
    """The suffix of the endpoint's URL."""
    provider: str = ""
    """The prefix of the model's name."""

    def endpoint(self, **settings: Any) -> Endpoint:
        """An endpoint with only this API format."""
        return Endpoint(speaks=(self.wire,), **settings)

    def open(self, url: str | None, environ: Mapping[str, str] | None = None, **options: object) -> Backend:
        """The backend, made from options as on a command line."""
        given = {
            "backend": self.backend,
            "base_url": url and url + self.path,
            "model": "tiny-vision",
            **options,
        }
        given["model"] = given["model"] and f"{self.provider}{given['model']}"
        return open_backend(RunConfig.of("photos", **given), environ or {})


KINDS = {
    "ollama": Kind(backend="ollama", wire="ollama", name="ollama"),
    "vllm": Kind(backend="vllm", wire="openai", name="vllm"),
    "openai": Kind(backend="openai", wire="openai", name="openai"),
    "llama-server": Kind(backend="llama-server", wire="openai", name="llama-server"),
    "lmstudio": Kind(backend="lmstudio", wire="openai", name="lmstudio"),
    "sglang": Kind(backend="sglang", wire="openai", name="sglang"),
    "openrouter": Kind(backend="openrouter", wire="openai", name="openrouter"),
    "auto-ollama": Kind(backend="auto", wire="ollama", name="ollama"),
    "auto-vllm": Kind(backend="auto", wire="openai", name="vllm"),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
LITELLM = Kind(backend="litellm", wire="openai", name="litellm", path="/v1", provider="openai/")
"""LiteLLM sends no request before the first image, so the tests of preflight do not apply to it."""
each_asker = pytest.mark.parametrize("kind", [*KINDS.values(), LITELLM], ids=[*KINDS, "litellm"])


@cache
def picture(colour: tuple[int, int, int] = (200, 30, 40)) -> PreparedImage:
    """A prepared picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "PNG")
    return prepare(file.getvalue(), ImageOptions())


def question(prompt: str = "What is it?", system: str | None = None, **generation: Any) -> Request:
    """A request with a picture."""
    return Request(images=(picture(),), prompt=prompt, system=system, generation=Generation(**generation))


def sent_sha256(image: PreparedImage) -> str:
    """The SHA-256 of the bytes that must arrive."""
    return hashlib.sha256(base64.b64decode(image.data)).hexdigest()


def asked(request: Received) -> dict[str, Any]:
    """The prompt and options of a request, read from the body of either API format."""
    body = request.body
    *system, user = body["messages"]
    knobs = body["options"] if request.wire == "ollama" else body
    told = user["content"]
    return {
        "system": system[0]["content"] if system else None,
        "prompt": told if isinstance(told, str) else told[0]["text"],
        "max_tokens": knobs["num_predict" if request.wire == "ollama" else "max_tokens"],
        "temperature": knobs["temperature"],
        "seed": knobs.get("seed"),
    }


@contextmanager
def closed_port() -> Iterator[str]:
    """The URL of a port that refuses connections and stays reserved."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def reply(body: object, *headers: str, status: str = "200 OK") -> bytes:
    """A raw reply; the body is encoded as JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


@asynccontextmanager
async def babbling(*replies: bytes | None) -> AsyncIterator[str]:
    """The URL of a server that sends these replies on each connection, one per request; None closes it."""
    talks: list[asyncio.Task[None] | None] = []
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        writers.append(writer)
        with suppress(ConnectionError):
            for raw in replies:
                await reader.read(65536)
                if raw is None:
                    break
                writer.write(raw)
                await writer.drain()
            else:
                while await reader.read(65536):
                    pass
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(t for t in talks if t), return_exceptions=True)
