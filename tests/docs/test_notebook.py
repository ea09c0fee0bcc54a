"""docs/notebook.ipynb is true: its cells run unchanged, and its stored outputs come from this program."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from command import environment
from documents import ROOT

STORED = (ROOT / "docs/notebook.ipynb").read_text(encoding="utf-8")
CELLS = json.loads(STORED)["cells"]


def text(value: str | list[str]) -> str:
    """A text of a notebook, which a file has as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def shape(cell: dict[str, Any]) -> list[Any]:
    """The kinds of the outputs of a cell, and how many lines each has as text."""
    found = []
    for output in cell.get("outputs", ()):
        shown = output.get("data", {})
        lines = text(output["text"] if "text" in output else shown["text/plain"]).splitlines()
        found.append((output["output_type"], sorted(shown), len(lines)))
    return found


@pytest.mark.long
def test_the_notebook_runs_as_it_stands(tmp_path: Path) -> None:
    """A real kernel executes each cell, and its outputs have the shape of the stored outputs."""
    for library in ("ipykernel", "nbclient", "pandas", "polars", "pydantic", "xllamacpp"):
        pytest.importorskip(library)
    executed = runpy.run_path(str(ROOT / "docs/execute_notebook.py"))["executed"]
    places = dict.fromkeys(("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"), str(tmp_path))
    cells = executed(env=environment(**places)).cells
    advice = "after a change, run: python docs/execute_notebook.py"
    assert [shape(cell) for cell in cells] == [shape(cell) for cell in CELLS], advice


def test_the_stored_outputs_are_complete_and_small() -> None:
    """Each cell but that of the options has an output, and no output has a path of a machine or an error."""
    first, *others = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [bool(cell["outputs"]) for cell in (first, *others)] == [False, *(True for _ in others)]
    assert [cell["execution_count"] for cell in (first, *others)] == list(range(1, len(others) + 2))
    assert "Traceback" not in STORED
    assert not re.search(r"ipykernel_|(?<![\w/.:<])/(?:\w+/)+", STORED)
    assert all(cell["metadata"] == {} for cell in CELLS)
    assert len(STORED) < 30_000
