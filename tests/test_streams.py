"""Streams for messages never block and never raise, whatever their reader does."""

import contextlib
import io
import os
import threading
from typing import TextIO

from vlmbatch.streams import BackgroundStream


class Halted(io.StringIO):
    """A terminal that accepts no text until it is resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.was_asked = threading.Event()

    def write(self, text: str) -> int:
        self.was_asked.set()
        self.goes_on.wait(30)
        return super().write(text)


def test_a_halted_terminal_gets_all_texts_when_it_is_resumed() -> None:
    """Writing to a halted terminal does not block, and all texts arrive in order when it is resumed."""
    terminal = Halted()
    stream = BackgroundStream(terminal)
    for n in range(100):
        stream.write(f"{n}\n")
    terminal.goes_on.set()
    stream.close(30)
    assert terminal.getvalue() == "".join(f"{n}\n" for n in range(100))
    assert stream.dropped == 0


def test_texts_over_the_limit_are_dropped_and_counted() -> None:
    """Texts beyond the limit are dropped and counted, so that a stopped reader costs bounded memory."""
    terminal = Halted()
    stream = BackgroundStream(terminal, most=10)
    stream.write("first")
    terminal.was_asked.wait(30)
    for _ in range(25):
        stream.write("more")
    assert stream.dropped == 15
    stream.close(0)
    terminal.goes_on.set()


def test_a_broken_pipe_raises_no_error() -> None:
    """Texts for a broken pipe are dropped, and the writing thread ends without an error."""
    reading, writing = os.pipe()
    os.close(reading)
    pipe: TextIO = os.fdopen(writing, "w", buffering=1)
    stream = BackgroundStream(pipe)
    stream.write("hello\n" * 10)
    stream.close(30)
    assert not stream._thread.is_alive()
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def test_wait_ends_when_the_terminal_has_the_text() -> None:
    """wait() does not end while the terminal is halted, and ends once it has all texts."""
    terminal = Halted()
    stream = BackgroundStream(terminal)
    stream.write("an answer")
    waiting = threading.Thread(target=stream.wait, daemon=True)
    waiting.start()
    assert terminal.was_asked.wait(30)
    assert waiting.is_alive()
    terminal.goes_on.set()
    waiting.join(30)
    assert not waiting.is_alive()
    assert terminal.getvalue() == "an answer"
    stream.close(30)
