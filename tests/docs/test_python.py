"""docs/python.md and the README are true: each example runs as it stands, each public name has its row."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command import run
from documents import blocks, page, section
from endpoint import Endpoint, Model, Received
from PIL import Image

import vlmbatch

PAGE = page("docs/python.md")
NOTEBOOK = section(PAGE, "## In a notebook")
TABLES = ("import pandas", "import display")
BLOCKS = [block for block in blocks(PAGE, "python") if not any(each in block for each in TABLES)]
IN_A_LOOP = """
import asyncio

async def cell():
    exec(compile(open("cell.py").read(), "cell.py", "exec"), {"__name__": "__main__"})

asyncio.run(cell())
"""


def answer(request: Received) -> str:
    """The same answer to every question, in the form that the question wants."""
    return '{"animal": "cat", "colour": "grey"}' if request.body.get("format") else "A grey cat."


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


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_example_runs_as_it_stands(block: str, served: Endpoint) -> None:
    """Typed into a file and run, it prints the model's answer, warns of nothing and ends well."""
    done = ran(block, served)
    assert done.returncode == 0, done.stderr
    assert not done.stderr or "tqdm" in block  # its bar is there
    assert "grey" in done.stdout
    assert served.questions


def test_a_cell_of_a_notebook_runs_inside_a_loop(served: Endpoint) -> None:
    """The first example for notebooks also works where an event loop runs already, as in Jupyter."""
    cell = blocks(NOTEBOOK, "python")[0]
    Path("cell.py").write_text(cell)
    done = ran(IN_A_LOOP, served)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A grey cat.") == 2


def test_records_become_a_table(served: Endpoint) -> None:
    """The examples with pandas show a row for each image, and a column for each prompt."""
    pytest.importorskip("pandas")
    first, _, table, prompts, _ = blocks(NOTEBOOK, "python")
    ran(first, served)
    for block, answers in ((table, 2), (prompts, 4)):
        done = ran(block, served)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("A grey cat.") == answers


def test_pictures_stand_beside_the_answers(served: Endpoint) -> None:
    """The example with pictures shows each picture, and prints its answer."""
    pytest.importorskip("IPython")
    done = ran(blocks(NOTEBOOK, "python")[-1], served)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A grey cat.") == done.stdout.count("PIL.Image") == 2


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


def test_each_public_name_has_its_row() -> None:
    """The table of names holds all names of the package, and no other."""
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.split("## A run")[0], re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(vlmbatch.__all__)
