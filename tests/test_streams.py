"""Streams for what is told: whatever their reader does, nobody waits and nothing is raised."""

import contextlib
import io
import os
import threading
from typing import TextIO

from vlmbatch.streams import BackgroundStream


class Halted(io.StringIO):
    """A terminal that takes nothing until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.was_asked = threading.Event()

    def write(self, text: str) -> int:
        self.was_asked.set()
        self.goes_on.wait(30)
        return super().write(text)


def test_what_is_written_to_a_halted_terminal_comes_when_it_goes_on() -> None:
    """All of it, in order; meanwhile nobody waits."""
    terminal = Halted()
    stream = BackgroundStream(terminal)
    for n in range(100):
        stream.write(f"{n}\n")
    terminal.goes_on.set()
    stream.close(30)
    assert terminal.getvalue() == "".join(f"{n}\n" for n in range(100))
    assert stream.dropped == 0


def test_what_is_too_much_is_dropped_and_counted() -> None:
    """A reader who never comes back costs no memory without end."""
    terminal = Halted()
    stream = BackgroundStream(terminal, most=10)
    stream.write("first")
    terminal.was_asked.wait(30)
    for _ in range(25):
        stream.write("more")
    assert stream.dropped == 15
    stream.close(0)
    terminal.goes_on.set()


def test_a_reader_who_has_gone_is_nobodys_error() -> None:
    """A broken pipe drops what is written to it, also in the thread."""
    reading, writing = os.pipe()
    os.close(reading)
    pipe: TextIO = os.fdopen(writing, "w", buffering=1)
    stream = BackgroundStream(pipe)
    stream.write("hello\n" * 10)
    stream.close(30)
    assert not stream._thread.is_alive()
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
