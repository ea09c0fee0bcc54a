"""The embedded engine: a real llama.cpp with the shipped demonstration model."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from vlmbatch.backends.llama_cpp.gguf import find_files
from vlmbatch.backends.registry import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import BadAnswerError, ConfigError, MissingDependencyError, TransientError
from vlmbatch.imaging.prepare import prepare
from vlmbatch.protocols import Backend
from vlmbatch.records import Generation, Request

CANCELLED_WHILE_LOADING = """
import asyncio
from vlmbatch.backends.llama_cpp.backend import LlamaCppBackend

async def main():
    for round in range(10):
        backend = LlamaCppBackend(model=None, mmproj=None, num_ctx=None, timeout_s=30)
        loading = asyncio.create_task(backend.__aenter__())
        await asyncio.sleep(round * 0.003)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await backend.__aexit__(None, None, None)

asyncio.run(main())
print("ended")
"""


def opened(**options: object) -> Backend:
    """The embedded engine with these options."""
    return open_backend(RunConfig.of("photos", backend="llama-cpp", **options), {})


def about(shape: str, colour: str, prompt: str = "Describe this image.", **generation: int) -> Request:
    """A request about one drawn shape on white."""
    picture = Image.new("RGB", (128, 128), "white")
    box = (34, 34, 94, 94)
    draw = ImageDraw.Draw(picture)
    draw.ellipse(box, colour) if shape == "circle" else draw.rectangle(box, colour)
    file = io.BytesIO()
    picture.save(file, "PNG")
    image = prepare(file.getvalue(), ImageOptions())
    return Request(images=(image,), prompt=prompt, generation=Generation(**generation))


@pytest.mark.slow
async def test_the_model_sees_the_picture() -> None:
    """The shipped model distinguishes a red circle from a blue square, so the pictures reach it."""
    async with opened() as backend:
        found = await backend.preflight()
        circle = await backend.complete(about("circle", "red"))
        square = await backend.complete(about("square", "blue"))
    assert "red circle" in circle.text
    assert "blue square" in square.text
    assert (found.backend, found.url, found.model) == ("llama-cpp", "in-process", "pixie-demo")
    assert circle.model == "pixie-demo"
    assert found.slots == backend.concurrency == 4
    assert found.digest == find_files(None, None).digest
    assert "demonstration model" in found.notes[0]


@pytest.mark.slow
async def test_token_limit_reaches_the_engine() -> None:
    """An answer that --max-tokens cuts is a `truncated` error with the text so far."""
    async with opened() as backend:
        with pytest.raises(BadAnswerError) as cut:
            await backend.complete(about("circle", "red", max_tokens=3))
    assert cut.value.kind == "truncated"
    assert cut.value.partial


@pytest.mark.slow
async def test_context_length_reaches_the_engine() -> None:
    """A prompt that fits into the default context is a `context` error with a smaller --num-ctx."""
    request = about("circle", "red", prompt="shape " * 300, max_tokens=3)
    async with opened() as backend:
        with pytest.raises(BadAnswerError, match="--max-tokens"):
            await backend.complete(request)
    async with opened(num_ctx=256) as backend:
        with pytest.raises(BadAnswerError, match="do not fit into the model's context") as full:
            await backend.complete(request)
    assert (full.value.kind, full.value.change) == ("context", "shrink")


@pytest.mark.slow
async def test_model_of_your_own(tmp_path: Path) -> None:
    """Two named files are loaded from any path, and no note calls them a demonstration."""
    demo = find_files(None, None)
    folder = tmp_path / "mo dèls, all"
    folder.mkdir()
    model, mmproj = folder / "my, own.gguf", folder / "mmproj.gguf"
    model.symlink_to(demo.model)
    mmproj.symlink_to(demo.mmproj)
    async with opened(model=str(model), mmproj=str(mmproj)) as backend:
        found = await backend.preflight()
        done = await backend.complete(about("circle", "green"))
    assert (found.model, found.notes, found.digest) == ("my, own", (), demo.digest)
    assert "green circle" in done.text


@pytest.mark.slow
async def test_deadline_holds_inside_too() -> None:
    """--timeout applies to the embedded engine, and a timed-out request does not delay its end."""
    async with opened(timeout=0.001) as backend:
        with pytest.raises(TransientError, match=r"no answer from the embedded engine within 0\.001 s"):
            await backend.complete(about("circle", "red"))


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["garbage", "half a model", "half a projector", "empty", "swapped"])
async def test_files_that_cannot_be_loaded(broken: str, tmp_path: Path) -> None:
    """Files that are broken or do not belong together are an error at the start that names them."""
    demo = find_files(None, None)
    whole, sight = demo.model.read_bytes(), demo.mmproj.read_bytes()
    contents = {
        "garbage": (b"not a model" * 100, sight),
        "half a model": (whole[: len(whole) // 2], sight),
        "half a projector": (whole, sight[: len(sight) // 2]),
        "empty": (b"", sight),
        "swapped": (sight, whole),
    }
    model, mmproj = tmp_path / "m.gguf", tmp_path / "mmproj.gguf"
    for path, content in zip((model, mmproj), contents[broken], strict=True):
        path.write_bytes(content)
    backend = opened(model=str(model), mmproj=str(mmproj))
    with pytest.raises(
        ConfigError, match=rf"cannot load {model} with {mmproj}: .*complete and belong together"
    ):
        await backend.__aenter__()


@pytest.mark.slow
def test_interrupted_while_it_loads() -> None:
    """A run that is cancelled while the model loads does end."""
    done = subprocess.run(
        [sys.executable, "-c", CANCELLED_WHILE_LOADING],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout == "ended\n"


def test_url_is_refused() -> None:
    """--base-url is an error for the embedded engine, which names the backend for a URL."""
    with pytest.raises(ConfigError, match="use --backend llama-server"):
        opened(base_url="http://127.0.0.1:8080")


def test_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without xllamacpp the error contains the command that installs it."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "vlmbatch\[embedded\]"'):
        opened()


async def test_file_that_is_missing() -> None:
    """A --model that is not a file is an error before anything is loaded."""
    with pytest.raises(ConfigError, match="is not a file"):
        await opened(model="none.gguf").__aenter__()
