"""CONTRIBUTING.md is true: its paths exist, its tree is complete, and an image takes the way it lists."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType

import pytest
from documents import ROOT, blocks, page, section
from endpoint import Endpoint

import vlmbatch
from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.pipeline.workers import WorkerPool

PAGE = page("CONTRIBUTING.md")
(TREE,) = blocks(PAGE, "text")
WAY = re.findall(r"^\d\. `(\S+)`: ", section(PAGE, "## The way of one image"), re.MULTILINE)
PACKAGE = ROOT / "vlmbatch"
INSTALLED = Path(vlmbatch.__file__).parents[1]  # the checkout, or where pip has put the package


def test_each_path_exists() -> None:
    """Each path and each file that the page names is there, but for names that the reader chooses."""
    text = PAGE.replace(TREE, "")
    folders = re.findall(r"(?<![\w/.-])(?:vlmbatch|tests|docs|benchmarks|\.ci)/[\w./]*\w/?", text)
    files = re.findall(r"(?<![\w/.-])[\w./-]+\.(?:py|toml|md)\b", text)
    named = [path for path in {*folders, *files} if "NAME" not in path and path != "backend.py"]
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_tree_is_complete() -> None:
    """The tree has a line for each package and for each file at the root of the program, and no other."""
    listed = [line.split()[0] for line in TREE.splitlines()[1:]]
    packages = [path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")]
    expected = [f"{path}/" for path in packages if path != Path()]
    expected += [path.name for path in PACKAGE.glob("*.py")]
    assert sorted(listed) == sorted(expected)


def awaited(coroutine: object) -> Iterator[CodeType]:
    """The code of a coroutine that waits, and of each one that it awaits, down to the last of ours."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            if hasattr(coroutine, f"{kind}_code"):
                yield getattr(coroutine, f"{kind}_code")
        below = (getattr(coroutine, name, None) for name in ("cr_await", "gi_yieldfrom", "ag_await"))
        coroutine = next((each for each in below if each is not None), None)


def files_entered() -> list[str]:
    """The files between the worker whose request is out and the `complete` of its backend, each once."""
    for task in asyncio.all_tasks():
        codes = list(awaited(task.get_coro()))
        if codes[0] is WorkerPool._work.__code__:
            last = max((at for at, code in enumerate(codes) if code.co_name == "complete"), default=None)
            if last is not None:
                files = (Path(code.co_filename).relative_to(INSTALLED) for code in codes[: last + 1])
                return list(dict.fromkeys(map(str, files)))
    raise AssertionError("no worker waits for an answer")


@pytest.mark.parametrize(
    ("backend", "end"),
    [
        ("vllm", ["vlmbatch/backends/openai/backend.py"]),
        ("ollama", ["vlmbatch/backends/ollama/backend.py"]),
        ("auto", ["vlmbatch/backends/forwarding.py", "vlmbatch/backends/ollama/backend.py"]),
    ],
)
async def test_an_image_takes_the_way_of_the_page(
    photos: Callable[..., Path], endpoint: Endpoint, backend: str, end: list[str]
) -> None:
    """While a request is out, its worker waits in the files of the list, in that order; six at most."""
    photos(1)
    endpoint.script = ["held"]
    config = RunConfig.of("photos", backend=backend, base_url=endpoint.url, model="tiny-vision")

    async def run() -> list[bool]:
        return [result.ok async for result in Batch(config)]

    running = asyncio.create_task(run())
    await asyncio.to_thread(endpoint.until, lambda: bool(endpoint.questions))
    entered = files_entered()
    endpoint.released = True
    assert await running == [True]
    assert WAY[-1] == "vlmbatch/backends/openai/backend.py"
    assert entered == [*WAY[:-1], *end]
    assert len(entered) <= (6 if backend == "auto" else 5)
