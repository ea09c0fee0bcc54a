"""Finds the two files of a GGUF vision model, on this disk or on the Hugging Face hub; starts no engine."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlmbatch.errors import ConfigError, MissingDependencyError

HUB_TIMEOUT_S = 10.0
MODEL_FLAGS = "--backend llama-cpp --model PATH.gguf --mmproj PATH.gguf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The two files of a vision model, and its name in records."""

    name: str
    model: Path
    mmproj: Path
    demo: bool = False

    @property
    def digest(self) -> str:
        """Identifies the weights by size and first megabyte of both files, which contain all metadata."""
        digest = hashlib.sha256()
        for path in (self.model, self.mmproj):
            with path.open("rb") as file:
                digest.update(str(path.stat().st_size).encode() + file.read(1 << 20))
        return digest.hexdigest()


def find_files(model: str | None, mmproj: str | None) -> ModelFiles:
    """The files that `--model` and `--mmproj` name; downloads hf.co/OWNER/REPO unless it is cached.

    Raises:
        ConfigError: a file is missing or not named, or the hub has no such model or is unreachable.
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
        raise ConfigError(f"--model {model} is not a file; write {MODEL_FLAGS}, or --model hf.co/OWNER/REPO")
    if mmproj is None:
        beside = sorted(Path(model).parent.glob("*mmproj*.gguf"))
        if len(beside) != 1:
            raise ConfigError(f"--model {model} needs its vision projector; add --mmproj PATH.gguf")
        mmproj = str(beside[0])
    if not Path(mmproj).is_file():
        raise ConfigError(f"--mmproj {mmproj} is not a file; check its path")
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
        siblings = hub.HfApi().model_info(repo, timeout=HUB_TIMEOUT_S).siblings or []
        listed = [sibling.rfilename for sibling in siblings]
        model, projector = choose_files(listed, quant, repo)
        needed = (projector, *parts_of(model, listed))
        found = {file: Path(hub.hf_hub_download(repo, file)) for file in needed}
        paths = [found[model], found[projector]]
    except (hub.errors.RepositoryNotFoundError, hub.errors.HFValidationError) as error:
        raise ConfigError(
            f"--model hf.co/{name}: Hugging Face has no such model, or the model is private; "
            "check its name, or "
            "set HF_TOKEN"
        ) from error
    except (hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # not in its __all__
        paths = _cached(hub.constants.HF_HUB_CACHE, repo, quant)
        if not paths:
            raise ConfigError(
                f"--model hf.co/{name}: the Hugging Face hub cannot be reached ({error}), and the model is "
                f"not in its cache; download it elsewhere and name the files: {MODEL_FLAGS}"
            ) from error
    return ModelFiles(name=f"hf.co/{name}", model=paths[0], mmproj=Path(mmproj) if mmproj else paths[1])


def _cached(cache: str, repo: str, quant: str) -> list[Path]:
    """Model and projector of an earlier download; empty if there is none."""
    snapshots = Path(cache) / f"models--{repo.replace('/', '--')}" / "snapshots"
    for snapshot in sorted(snapshots.glob("*"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            names = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf")]
            model, projector = choose_files(names, quant, repo)
        except ConfigError:
            continue
        return [snapshot / model, snapshot / projector]
    return []


def choose_files(names: Iterable[str], quant: str, repo: str) -> tuple[str, str]:
    """The model and the projector among a repository's files.

    The model has the requested quantisation, else Q4_K_M, else it is the first; of a split model this is the
    first part. An F16 projector is preferred.

    Raises:
        ConfigError: the repository lacks one of the two.
    """
    ggufs = sorted(n for n in names if n.endswith(".gguf"))
    projectors = [n for n in ggufs if "mmproj" in n.lower()]
    models = [n for n in ggufs if n not in projectors]
    matching = [n for n in models if (quant or "q4_k_m").lower() in n.lower()]
    if not models or (quant and not matching):
        raise ConfigError(
            f"hf.co/{repo} has no {quant or ''} .gguf model; it has: {', '.join(models) or 'none'}; "
            "choose another with --model"
        )
    if not projectors:
        raise ConfigError(
            f"hf.co/{repo} has no mmproj .gguf, so this model cannot see images; choose another with --model"
        )
    halves = [n for n in projectors if "f16" in n.lower() and "bf16" not in n.lower()]
    return (matching or models)[0], (halves or projectors)[0]


def parts_of(model: str, names: Iterable[str]) -> list[str]:
    """All files of a model split by llama.cpp's gguf-split: `m-00001-of-00003.gguf` and so on."""
    cut = re.fullmatch(r"(.*-)\d{5}(-of-\d{5}\.gguf)", model)
    if cut is None:
        return [model]
    return sorted(n for n in names if re.fullmatch(rf"{re.escape(cut[1])}\d{{5}}{re.escape(cut[2])}", n))
