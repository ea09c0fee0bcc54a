"""A real llama.cpp server over HTTP with the demonstration model: --backend llama-server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import xllamacpp
from PIL import Image, ImageDraw
from running import ran

from vlmbatch.backends.registry import open_backend
from vlmbatch.config import RunConfig
from vlmbatch.errors import FatalBackendError
from vlmbatch.protocols import Backend
from vlmbatch.records import Load

Photos = Callable[..., Path]
MODELS = Path(__file__).parents[2] / "vlmbatch" / "backends" / "llama_cpp" / "demo_model"
SLOTS = 2
pytestmark = pytest.mark.slow


@contextmanager
def serving(*, has_vision: bool = True, **settings: Any) -> Iterator[str]:
    """The URL of a server with two slots; `settings` are further parameters of llama.cpp."""
    params = xllamacpp.CommonParams()
    params.model.path = str(MODELS / "pixie-q8_0.gguf")
    if has_vision:
        params.mmproj.path = str(MODELS / "mmproj-pixie-q8_0.gguf")
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * 1024
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity, params.warmup, params.ui = 0, False, False
    for name, value in settings.items():
        setattr(params, name, value)
    server = xllamacpp.Server(params)
    yield server.listening_address


@pytest.fixture
def shapes(photos: Photos) -> Path:
    """A folder with a red circle and a blue square, as JPEGs that need no change."""
    folder = photos(0)
    for name, colour in (("circle", "red"), ("square", "blue")):
        picture = Image.new("RGB", (128, 128), "white")
        draw = ImageDraw.Draw(picture)
        shape = draw.ellipse if name == "circle" else draw.rectangle
        shape((34, 34, 94, 94), colour)
        picture.save(folder / f"{name}.jpg", quality=95)
    return folder


def opened(url: str, **options: object) -> Backend:
    """The backend for this server."""
    return open_backend(RunConfig.of("photos", backend="llama-server", base_url=url, **options), {})


async def test_it_answers_about_the_pictures(shapes: Path) -> None:
    """The answers of a run name the colours in the pictures; the records name the preset and the slots."""
    with serving() as url:
        done = await ran(backend="llama-server", base_url=url)
    assert done.error is None
    told = {Path(r.id).stem: r.completion.text.lower() for r in done.results if r.completion}
    assert ("red" in told["circle"], "blue" in told["square"]) == (True, True)
    assert {(r.endpoint.backend, r.endpoint.slots) for r in done.results} == {("llama-server", SLOTS)}


async def test_a_model_without_vision_ends_the_run(shapes: Path) -> None:
    """A model that was started without its vision part ends the run, without a record."""
    with serving(has_vision=False, model_alias={"blind"}) as url:
        done = await ran(backend="llama-server", base_url=url, model="blind")
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.results) == ("no_vision", [])


@pytest.mark.parametrize("metrics", [True, False])
async def test_it_reports_its_queue_with_metrics(metrics: bool) -> None:
    """With --metrics the server reports its queue, and without it (501) the load is None."""
    with serving(endpoint_metrics=metrics) as url:
        async with opened(url) as backend:
            await backend.preflight()
            assert await backend.load() == (Load(running=0, waiting=0) if metrics else None)


async def test_it_accepts_only_its_key(shapes: Path) -> None:
    """A server with a key accepts this key, and another key ends the run."""
    with serving(api_keys=["some-key-123"]) as url:
        assert (await ran(backend="llama-server", base_url=url, api_key="some-key-123")).error is None
        refused = await ran(backend="llama-server", base_url=url, api_key="another-one")
    assert isinstance(refused.error, FatalBackendError)
    assert refused.error.kind == "auth"


async def test_file_urls_need_media_path(shapes: Path) -> None:
    """Without --media-path the server refuses file:// URLs, and the error names that flag."""
    with serving() as url:
        done = await ran(backend="llama-server", base_url=url, file_urls=True)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, "--media-path" in str(done.error)) == ("bad_config", True)


async def test_media_path_allows_file_urls(shapes: Path) -> None:
    """With --media-path / a run with file:// URLs succeeds."""
    with serving(media_path="/") as url:
        done = await ran(backend="llama-server", base_url=url, file_urls=True)
    assert done.error is None
