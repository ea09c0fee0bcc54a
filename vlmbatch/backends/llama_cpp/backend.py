"""The embedded engine: llama.cpp inside this process (xllamacpp), through the OpenAI API on loopback."""

import asyncio
import http.client
import importlib.util
import secrets
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from vlmbatch.backends.llama_cpp.gguf import MODEL_FLAGS, ModelFiles, find_files
from vlmbatch.backends.openai.backend import OpenAICompatibleBackend
from vlmbatch.backends.openai.servers import EMBEDDED
from vlmbatch.backends.values import version
from vlmbatch.errors import ConfigError, MissingDependencyError
from vlmbatch.machine import usable_cpus
from vlmbatch.protocols import Tell, quiet
from vlmbatch.records import Completion, Endpoint, Generation, ModelFacts, Request

if TYPE_CHECKING:
    from xllamacpp import Server

SLOTS = 4
SPARE_CPUS = 1
"""CPUs that the engine leaves free. Its threads wait for each other in busy loops: if one of them has to wait
for a CPU, the rest burn theirs. Without a free CPU, a machine with two gave a twelfth of the answers."""
CONTEXT_PER_SLOT = 4096
DEMO_CONTEXT_PER_SLOT = 1024
DEMO_NOTE = (
    "this is the demonstration model: it knows drawn shapes, not photographs; "
    f"name a real model with {MODEL_FLAGS}, or start Ollama or vLLM"
)


def is_installed() -> bool:
    """Whether the embedded engine is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaCppBackend:
    """Runs a server on a free loopback port with a random key until it is closed."""

    name = "llama-cpp"
    place = "in-process"
    concurrency = SLOTS

    def __init__(
        self, *, model: str | None, mmproj: str | None, num_ctx: int | None, timeout_s: float
    ) -> None:
        """`model` is a .gguf file, hf.co/OWNER/REPO[:QUANT], or None for the demonstration model."""
        if not is_installed():
            raise MissingDependencyError(
                'the embedded engine is not installed; install it with: pip install "vlmbatch[embedded]"'
            )
        self._model = model
        self._mmproj = mmproj
        self._num_ctx = num_ctx
        self._timeout_s = timeout_s
        self._files: ModelFiles | None = None
        self._server: Server | None = None
        self._version: str | None = None
        self._wire: OpenAICompatibleBackend | None = None

    def masked(self, text: str) -> str:
        """The text without the key of the embedded server; see protocols.Backend."""
        return text if self._wire is None else self._wire.masked(text)

    async def __aenter__(self) -> Self:
        key = secrets.token_urlsafe(24)
        self._files = await asyncio.to_thread(find_files, self._model, self._mmproj)
        server = await asyncio.to_thread(self._start, self._files, key)
        self._server = server
        self._wire = OpenAICompatibleBackend(
            f"{server.listening_address}/v1",
            server_type=EMBEDDED,
            model=None,
            api_key=key,
            timeout_s=self._timeout_s,
        )
        self._wire.place = "the embedded engine"  # shown in errors instead of the random port
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._wire is not None:
            await self._wire.__aexit__(*exc)
        self._server = None

    def _start(self, files: ModelFiles, key: str) -> "Server":
        import xllamacpp  # slow to import, and needed only here

        self._version = version(getattr(xllamacpp, "__version__", None))
        params = xllamacpp.CommonParams()
        params.model.path = str(files.model)
        params.mmproj.path = str(files.mmproj)
        params.model_alias = {files.name}
        params.api_keys = [key]
        per_slot = self._num_ctx or (DEMO_CONTEXT_PER_SLOT if files.demo else CONTEXT_PER_SLOT)
        params.n_parallel = SLOTS
        params.n_ctx = per_slot * SLOTS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, usable_cpus() - SPARE_CPUS)
        params.verbosity = 0
        params.warmup = False
        params.ui = False
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ConfigError(
                f"llama.cpp cannot load {files.model} with {files.mmproj}: {error}; "
                "check that both files are complete and belong together"
            ) from error
        _serve_once(server.listening_address, key)
        return server

    async def preflight(self, tell: Tell = quiet) -> Endpoint:
        """Return the model, which is already loaded; see protocols.Backend."""
        if self._wire is None or self._files is None:
            raise RuntimeError("used outside of its async with")
        found = await self._wire.preflight(tell)
        return replace(
            found,
            url=self.place,
            model=self._files.name,
            digest=await asyncio.to_thread(lambda files: files.digest, self._files),
            version=self._version,
            notes=(DEMO_NOTE,) if self._files.demo else (),
        )

    async def models(self) -> list[ModelFacts]:
        """The only model of the engine; see protocols.Catalogue."""
        if self._wire is None or self._files is None:
            raise RuntimeError("used outside of its async with")
        name = self._files.name
        found = await self._wire.models()
        return [replace(m, name=name, backend=self.name, endpoint=self.place) for m in found]

    async def probe(self) -> None:
        """Check that the engine answers; see protocols.Backend."""
        if self._wire is not None:
            await self._wire.probe()

    async def listens(self) -> bool:
        """Return True: the engine runs in this process; see protocols.Backend."""
        return True

    async def load(self) -> None:
        """Return None: only this run uses the engine; see protocols.Backend."""

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        """Do nothing: the model is loaded on entry; see protocols.Backend."""
        return 0.0

    async def unload(self) -> None:
        """Do nothing; see protocols.Backend."""

    async def complete(self, request: Request) -> Completion:
        """Send one request; see protocols.Backend."""
        if self._wire is None:
            raise RuntimeError("used outside of its async with")
        return await self._wire.complete(request)


def _serve_once(address: str, key: str) -> None:
    """Wait until the engine has served a request that goes through its queue.

    A server that is closed before that, for example by Ctrl-C while it loads, never ends (xllamacpp 2026.10).
    """
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    with closing(connection):
        connection.request("GET", "/slots", headers={"Authorization": f"Bearer {key}"})
        connection.getresponse().read()
