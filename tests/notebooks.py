"""Executes notebooks in a real kernel, and stores all messages that the kernel sends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from command import environment
from nbclient import NotebookClient


class Notebook:
    """A notebook whose cells were executed in this folder, with these variables of the environment."""

    def __init__(self, cells: Sequence[str], folder: Path, **variables: str) -> None:
        """`cells` are the texts of its code cells.

        Raises:
            CellExecutionError: a cell raised an exception.
        """
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        state = folder / "jupyter"
        places = {name: str(state) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
        client = _Client(
            book,
            timeout=240,
            kernel_name="python3",
            coalesce_streams=True,  # as Jupyter does
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=environment(PYDEVD_DISABLE_FILE_VALIDATION="1", **places, **variables))
        self.messages = client.messages
        """The type and content of each message, in order."""
        self.outputs: list[list[Any]] = [cell.outputs for cell in book.cells]
        """The outputs of each cell at the end."""


class _Client(NotebookClient):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.messages: list[tuple[str, Any]] = []

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        self.messages.append((msg["msg_type"], msg["content"]))
        return super().process_message(msg, cell, cell_index)
