"""The bar in the output of a notebook's cell; the only module that imports IPython."""

import io
import threading
from collections import deque
from typing import Any, Self

from IPython.display import display
from rich.console import RenderableType

from vlmbatch.observers.bar import REFRESHES_S, WIDEST, BarConsole, BarObserver
from vlmbatch.observers.format import clean

MOST_LINES = 30
"""Only the latest messages are shown, since each update sends all of them to the browser."""
PRE = '<pre style="margin:0;white-space:pre-wrap;line-height:1.3">{code}</pre>'


class NotebookBar(BarObserver):
    """A bar with the messages above it. Both are one output of the cell; each update replaces it.

    Jupyter replaces an output by its id, so ipywidgets is not needed. rich.live needs it, and captures the
    text that the cell prints meanwhile.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__(io.StringIO(), verbose=verbose)
        self._messages: deque[str] = deque(maxlen=MOST_LINES)
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="vlmbatch-progress", daemon=True)
        self._output: Any = None

    def __enter__(self) -> Self:
        self._output = display(  # type: ignore[no-untyped-call,unused-ignore]
            _shown(self._messages, self), raw=True, display_id=True
        )
        self._ticker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove the bar; the messages stay."""
        self._ended.set()
        self._ticker.join()
        self._output.update(_shown(self._messages), raw=True)

    def say(self, line: str) -> None:
        """Add one line above the bar; it appears with the next update."""
        self._messages.append(clean(line))

    def _tick(self) -> None:
        while not self._ended.wait(1 / REFRESHES_S):
            self._output.update(_shown(self._messages, self), raw=True)


def _shown(lines: "deque[str]", *below: RenderableType) -> dict[str, str]:
    """The lines, and below them the rest, in the form of Jupyter: HTML, and text for other programs."""
    console = BarConsole(
        file=io.StringIO(),
        width=WIDEST,
        record=True,
        force_jupyter=False,
        color_system="truecolor",
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for line in lines.copy():  # another thread may add to them
        console.print(line, soft_wrap=True)
    for each in below:
        console.print(each)
    html = console.export_html(inline_styles=True, code_format=PRE, clear=False)
    return {"text/html": html, "text/plain": console.export_text()}
