"""The progress of a run in Python: a bar in a notebook or on a terminal, plain lines elsewhere."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.file_proxy import FileProxy

from vlmbatch.events import ignore
from vlmbatch.observers.bar import Bar
from vlmbatch.observers.lines import Lines
from vlmbatch.protocols import Observer
from vlmbatch.streams import CurrentStderr, as_text, has_terminal, on_one_terminal

_CHANGING = threading.RLock()
"""Held while a bar begins or ends, and while a run without a bar writes."""


@contextmanager
def open_progress(*, verbose: bool) -> Iterator[Observer]:
    """An observer that shows progress and messages inside the ``with``, for `progress=True`.

    On a terminal, lines that the program prints meanwhile appear above the bar. A terminal has one bar: while
    it is drawn, other runs print plain lines above it.
    """
    if sys.stderr is None:  # a program without a console, such as that of pythonw.exe
        yield ignore
    elif Console().is_jupyter:
        from vlmbatch.observers.notebook import NotebookBar  # in Jupyter, IPython is installed

        with NotebookBar(verbose=verbose) as shown:
            yield shown
    elif (shown_bar := _shown_bar(verbose=verbose)) is not None:
        try:
            yield shown_bar.bar
        finally:
            shown_bar.end()
    else:
        with Lines(as_text(CurrentStderr(_CHANGING)), verbose=verbose) as lines:
            yield lines


def _shown_bar(*, verbose: bool) -> "_ShownBar | None":
    """A bar that is drawn; None if standard error is no terminal, or has a bar."""
    with _CHANGING:
        if not has_terminal() or isinstance(sys.stderr, FileProxy):  # rich's, while a bar is drawn
            return None
        return _ShownBar(verbose=verbose)


class _ShownBar:
    """A bar on a terminal. Log lines appear above it, also from handlers that existed before.

    A handler keeps the stream that it was made with, for example that of logging.basicConfig(). While the bar
    is drawn, the handler has the stream with which rich replaces that one.
    """

    def __init__(self, *, verbose: bool) -> None:
        streams = [sys.stdout, sys.stderr]
        self.bar = Bar(sys.stderr, verbose=verbose, shares_stdout=on_one_terminal()).__enter__()
        replaced = zip(streams, [sys.stdout, sys.stderr], strict=True)
        self._moves = [(h, old, new) for old, new in replaced for h in _handlers_of(old)]
        try:
            for handler, _, new in self._moves:
                logging.StreamHandler.setStream(handler, new)
        except BaseException:  # a handler of the program cannot be flushed
            self.end()
            raise

    def end(self) -> None:
        """Remove the bar, and give the handlers their streams back."""
        with _CHANGING:
            self.bar.__exit__()
            for handler, old, new in self._moves:
                if handler.stream is new:  # the program has given it no other one
                    logging.StreamHandler.setStream(handler, old)


def _handlers_of(stream: TextIO) -> list["logging.StreamHandler[TextIO]"]:
    """The log handlers that write to this stream."""
    loggers = (logging.root, *logging.root.manager.loggerDict.copy().values())
    handlers = {id(h): h for logger in loggers for h in getattr(logger, "handlers", ())}.values()
    return [h for h in handlers if isinstance(h, logging.StreamHandler) and vars(h).get("stream") is stream]
