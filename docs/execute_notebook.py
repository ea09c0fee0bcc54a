"""Executes docs/notebook.ipynb with the demonstration model, and stores the outputs.

Run it after each change of the notebook, in any folder: python docs/execute_notebook.py
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
KEPT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def executed(**start: object) -> nbformat.NotebookNode:
    """The notebook with new outputs, without times and versions; `start` are arguments for its kernel."""
    book = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    client = NotebookClient(
        book,
        timeout=240,
        kernel_name="python3",
        coalesce_streams=True,  # as Jupyter does
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    client.execute(**start)
    book.metadata = nbformat.from_dict(KEPT)
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({})
    return book


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
