"""The embedded engine: llama.cpp inside this process (xllamacpp), asked on loopback over the OpenAI wire."""

import asyncio
import hashlib
import importlib.util
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vlmbatch.backends.openai_compatible import OpenAICompatibleBackend
from vlmbatch.errors import ConfigError, MissingDependencyError
from vlmbatch.records import Completion, Endpoint, Request

if TYPE_CHECKING:
    from xllamacpp import Server

SLOTS = 4
CONTEXT_PER_SLOT = 4096
DEMO_CONTEXT_PER_SLOT = 1024
HUB_TIMEOUT_S = 10.0
NAME_A_REAL_ONE = "--backend llama-cpp --model PATH.gguf --mmproj PATH.gguf"
DEMO_NOTE = (
    "this is the demonstration model: it knows drawn shapes, not photographs; "
    f"name a real one with {NAME_A_REAL_ONE}, or start Ollama or vLLM"
)


def is_installed() -> bool:
    """Whether the embedded engine can be used here."""
    return importlib.util.find_spec("xllamacpp") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The two files of a vision model, and the name its records carry."""

    name: str
    model: Path
    mmproj: Path
    demo: bool = False

    @property
    def digest(self) -> str:
        """Names the weights by size and first megabyte of both files, which hold all of their metadata."""
        digest = hashlib.sha256()
        for path in (self.model, self.mmproj):
            with path.open("rb") as file:
                digest.update(str(path.stat().st_size).encode() + file.read(1 << 20))
        return digest.hexdigest()


class LlamaCppBackend:
    """Runs a server on a free loopback port behind a random key, for as long as the run lasts."""

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
        self._wire: OpenAICompatibleBackend | None = None

    async def __aenter__(self) -> Self:
        key = secrets.token_urlsafe(24)
        self._files = await asyncio.to_thread(find_files, self._model, self._mmproj)
        server = await asyncio.to_thread(self._start, self._files, key)
        self._server = server
        self._wire = OpenAICompatibleBackend(
            f"{server.listening_address}/v1",
            name=self.name,
            model=None,
            api_key=key,
            timeout_s=self._timeout_s,
        )
        await self._wire.__aenter__()
        # a server that is taken down before it served its first request never ends (xllamacpp 2026.10)
        await self._wire.probe()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._wire is not None:
            await self._wire.__aexit__(exc_type, exc, traceback)
        self._server = None

    def _start(self, files: ModelFiles, key: str) -> "Server":
        import xllamacpp  # heavy, and only here

        params = xllamacpp.CommonParams()
        params.model.path = str(files.model)
        params.mmproj.path = str(files.mmproj)
        params.model_alias = {files.name}
        params.api_keys = [key]
        per_slot = self._num_ctx or (DEMO_CONTEXT_PER_SLOT if files.demo else CONTEXT_PER_SLOT)
        params.n_parallel = SLOTS
        params.n_ctx = per_slot * SLOTS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count() or 1
        params.verbosity = 0
        params.warmup = False
        params.ui = False
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise ConfigError(
                f"llama.cpp cannot load {files.model} with {files.mmproj}: {error}; "
                "check that both files are whole and belong together"
            ) from error

    async def preflight(self) -> Endpoint:
        """The model is loaded already; see protocols.Backend."""
        if self._wire is None or self._files is None:
            raise RuntimeError("used outside of its async with")
        found = await self._wire.preflight()
        return replace(
            found,
            url=self.place,
            model=self._files.name,
            digest=await asyncio.to_thread(lambda files: files.digest, self._files),
            notes=(DEMO_NOTE,) if self._files.demo else (),
        )

    async def probe(self) -> None:
        """Whether it still answers; see protocols.Backend."""
        if self._wire is not None:
            await self._wire.probe()

    async def complete(self, request: Request) -> Completion:
        """Ask once; see protocols.Backend."""
        if self._wire is None:
            raise RuntimeError("used outside of its async with")
        return await self._wire.complete(request)


def find_files(model: str | None, mmproj: str | None) -> ModelFiles:
    """The files that `--model` and `--mmproj` name; downloads hf.co/OWNER/REPO where it is not cached.

    Raises:
        ConfigError: a file is missing or not named, or the hub has no such model or cannot be reached.
    """
    if model is None:
        if mmproj is not None:
            raise ConfigError(f"--mmproj {mmproj} needs the model that it belongs to; add --model PATH.gguf")
        folder = Path(__file__).parent / "demo_model"
        return ModelFiles(
            name="pixie-demo",
            model=folder / "pixie-q8_0.gguf",
            mmproj=folder / "mmproj-pixie-q8_0.gguf",
            demo=True,
        )
    for prefix in ("hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/"):
        if model.startswith(prefix):
            return _from_hub(model.removeprefix(prefix).strip("/"), mmproj)
    if not Path(model).is_file():
        raise ConfigError(f"--model {model} is no file; the form is {NAME_A_REAL_ONE}, or hf.co/OWNER/REPO")
    if mmproj is None:
        beside = sorted(Path(model).parent.glob("*mmproj*.gguf"))
        if len(beside) != 1:
            raise ConfigError(f"--model {model} needs its vision part; add --mmproj PATH.gguf")
        mmproj = str(beside[0])
    if not Path(mmproj).is_file():
        raise ConfigError(f"--mmproj {mmproj} is no file")
    return ModelFiles(name=Path(model).stem, model=Path(model), mmproj=Path(mmproj))


def _from_hub(name: str, mmproj: str | None) -> ModelFiles:
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise MissingDependencyError(
            'huggingface_hub is not installed; install it with: pip install "vlmbatch[embedded]"'
        ) from error
    repo, _, quant = name.partition(":")
    try:
        listed = hub.HfApi().model_info(repo, timeout=HUB_TIMEOUT_S).siblings or []
        model, projector = choose_files([s.rfilename for s in listed], quant, repo)
        paths = [Path(hub.hf_hub_download(repo, f)) for f in (model, projector)]
    except (hub.errors.RepositoryNotFoundError, hub.errors.HFValidationError) as error:
        raise ConfigError(f"--model hf.co/{name}: the hub has no such model, or it is private") from error
    except (hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # not in its __all__
        paths = _cached(hub.constants.HF_HUB_CACHE, repo, quant)
        if not paths:
            raise ConfigError(
                f"--model hf.co/{name}: the Hugging Face hub cannot be reached ({error}), and the model is "
                f"not in its cache; download it elsewhere and name the files: {NAME_A_REAL_ONE}"
            ) from error
    return ModelFiles(name=f"hf.co/{name}", model=paths[0], mmproj=Path(mmproj) if mmproj else paths[1])


def _cached(cache: str, repo: str, quant: str) -> list[Path]:
    """Model and projector of an earlier download; empty where there is none."""
    snapshots = Path(cache) / f"models--{repo.replace('/', '--')}" / "snapshots"
    for snapshot in sorted(snapshots.glob("*"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            found = choose_files([p.name for p in snapshot.glob("*.gguf")], quant, repo)
        except ConfigError:
            continue
        return [snapshot / name for name in found]
    return []


def choose_files(names: Iterable[str], quant: str, repo: str) -> tuple[str, str]:
    """The model and the projector among a repository's files: the quantisation asked for, else Q4_K_M,
    else the first; of a model in parts the first part; of projectors F16 before others.

    Raises:
        ConfigError: the repository lacks one of the two.
    """
    ggufs = sorted(n for n in names if n.endswith(".gguf"))
    projectors = [n for n in ggufs if "mmproj" in n.lower()]
    models = [n for n in ggufs if n not in projectors]
    wanted = [n for n in models if (quant or "q4_k_m").lower() in n.lower()]
    if not models or (quant and not wanted):
        raise ConfigError(
            f"hf.co/{repo} has no {quant or ''} .gguf model; it has: {', '.join(models) or 'none'}"
        )
    if not projectors:
        raise ConfigError(f"hf.co/{repo} has no mmproj .gguf, so this model cannot see; choose another")
    halves = [n for n in projectors if "f16" in n.lower() and "bf16" not in n.lower()]
    return (wanted or models)[0], (halves or projectors)[0]
