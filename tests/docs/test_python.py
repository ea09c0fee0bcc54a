"""Each Python example of the README, the pages about Python and the docstrings runs as it stands."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command import run
from documents import blocks, examples, page, section
from endpoint import Endpoint, Model, Received
from PIL import Image
from selection import long, mostly_long

PAGE = page("docs/python.md")
NOTEBOOK = section(PAGE, "## In a notebook")
TABLES = blocks(section(PAGE, "## Answers as a table"), "python")
PAGES = ("README.md", "docs/python.md", "docs/structured-answers.md", "docs/api.md")
PHOTO = '{"title": "A grey cat", "light": "day", "people": 0}'
BLOCKS = [block for name in PAGES for block in examples(name) if block not in TABLES]
FIRST = [examples(name)[0] for name in PAGES]
PROMPTS = """
from vlmbatch import run_batch

for prompt in ("Describe this image.", "Name the main colours."):
    options = {"prompt": prompt, "model": "qwen2.5vl", "output": "captions.jsonl", "append": True}
    print([result.text for result in run_batch("photos", **options)])
"""
IN_A_LOOP = """
import asyncio

async def cell():
    exec(compile(open("cell.py").read(), "cell.py", "exec"), {"__name__": "__main__"})

asyncio.run(cell())
"""


def answer(request: Received) -> str:
    """The same answer to every question, in the form that the question wants."""
    fields = request.body.get("format")
    if not fields:
        return "A grey cat."
    return PHOTO if "light" in fields["properties"] else '{"animal": "cat", "colour": "grey"}'


@pytest.fixture
def served(photos: Callable[..., Path]) -> Iterator[Endpoint]:
    """An endpoint with the model of the page; the test stands above the page's photos."""
    folder = photos(0)
    for name, colour in (("cat", "grey"), ("dog", "brown")):
        Image.new("RGB", (64, 48), colour).save(folder / f"{name}.jpg")
    with Endpoint(models={"qwen2.5vl": Model(vision=True)}, answer=answer) as endpoint:
        yield endpoint


def ran(block: str, endpoint: Endpoint) -> CompletedProcess[str]:
    """The example, typed into a file and run, with Ollama at this endpoint."""
    Path("example.py").write_text(block)
    return run("example.py", command=(sys.executable, "-W", "error"), OLLAMA_HOST=endpoint.url)


@pytest.mark.parametrize("block", mostly_long(BLOCKS, FIRST), ids=range(len(BLOCKS)))
def test_each_example_runs_as_it_stands(block: str, served: Endpoint) -> None:
    """Typed into a file and run, it prints the model's answer, warns of nothing and ends well."""
    done = ran(block, served)
    assert done.returncode == 0, done.stderr
    assert not done.stderr or "progress=True" in block  # the progress lines
    assert "grey" in done.stdout
    assert served.questions


@pytest.mark.parametrize("heading", ["## A run", "## A session"])
def test_a_cell_of_a_notebook_runs_inside_a_loop(heading: str, served: Endpoint) -> None:
    """The first examples for runs and sessions also work where an event loop runs already, as in Jupyter."""
    Path("cell.py").write_text(blocks(section(PAGE, heading), "python")[0])
    done = ran(IN_A_LOOP, served)
    assert done.returncode == 0, done.stderr
    assert "A grey cat." in done.stdout


@pytest.mark.parametrize(
    ("block", "library", "answers"),
    [(TABLES[0], "pandas", 4), long(TABLES[1], "polars", 4), long(TABLES[2], "pandas", 4)],
)
def test_records_become_a_table(block: str, library: str, answers: int, served: Endpoint) -> None:
    """The tables have a row for each record, and that of the prompts a column for each prompt."""
    pytest.importorskip(library)
    ran(PROMPTS, served)
    done = ran(block, served)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A grey cat.") == answers


def test_several_images_are_one_question(served: Endpoint) -> None:
    """The example about several images sends both in one request."""
    (block,) = blocks(section(PAGE, "## Several images"), "python")
    ran(block, served)
    assert [len(request.pictures) for request in served.questions] == [2]


def test_a_service_gets_statuses(served: Endpoint) -> None:
    """The example about errors tells a broken upload from a good one."""
    (block,) = blocks(section(PAGE, "## Errors"), "python")
    statuses = [line.partition(",")[0] for line in ran(block, served).stdout.splitlines()]
    assert statuses == ["(422", "(200"]
