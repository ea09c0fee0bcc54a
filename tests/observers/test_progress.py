"""`progress=True` in Python: a bar on a terminal and in a notebook, and plain lines elsewhere."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from terminal import Terminal

from vlmbatch.events import Notice
from vlmbatch.observers.progress import open_progress

Photos = Callable[..., Path]
PYTHON = (sys.executable, "-W", "error")
SCRIPT = """
import sys
from vlmbatch import run_batch

options = {{"backend": "ollama", "model": "tiny-vision", "base_url": "{url}", "concurrency": 2}}
for number, result in enumerate(run_batch("photos", progress=True, **options)):
    print("answer", number, "[bold]", result.id)
    {body}
print("the end")
"""


def script(endpoint: Endpoint, body: str = "") -> str:
    """The name of a script whose loop has this line; notes about the endpoint come at its start."""
    endpoint.routes["/api/show"] = "500"
    Path("script.py").write_text(SCRIPT.format(url=endpoint.url, body=body))
    return "script.py"


def test_printed_answers_stand_above_the_bar(photos: Photos, endpoint: Endpoint) -> None:
    """On one terminal the bar stays below the answers that the loop prints; the summary replaces it."""
    photos(8)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 6 else "held"
    with Terminal(script(endpoint), command=PYTHON, stdout=True, columns=100) as terminal:
        terminal.until(r"answer 5", r"━.* 75% 6/8 images .*\n  6 ok  0 failed .* endpoint up, 2 at once$")
        endpoint.released = True
        assert terminal.wait() == 0
        first, note, *answers, summary, last = terminal.rows
        assert first.startswith("using tiny-vision")
        assert "/api/show" in note + answers.pop(0)
        assert [row.rpartition(" ")[0] for row in answers] == [f"answer {n} [bold]" for n in range(8)]
        assert summary.startswith("finished: 8 answered")
        assert last == "the end"


def test_answers_stay_out_of_the_bar_if_they_go_elsewhere(photos: Photos, endpoint: Endpoint) -> None:
    """If standard output is no terminal, it gets what the loop prints, and the terminal has the bar alone."""
    photos(4)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 2 else "held"
    body = "open('copy.txt', 'a').write(type(sys.stdout).__name__ + '\\n')"
    with Terminal(script(endpoint, body), command=PYTHON) as terminal:
        terminal.until(r" 50% 2/4 images ")
        endpoint.released = True
        assert terminal.wait() == 0
        assert b"[bold]" not in terminal.raw
    assert Path("copy.txt").read_text() == "TextIOWrapper\n" * 4


@pytest.mark.parametrize(("body", "code"), [("break", 0), ("1 / 0", 1), ("sys.exit(7)", 7)])
def test_the_bar_ends_with_the_loop(body: str, code: int, photos: Photos, endpoint: Endpoint) -> None:
    """Leaving the loop, also by an exception, removes the bar before the next line appears."""
    photos(8)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 4 else "held"
    with Terminal(script(endpoint, body), command=PYTHON, stdout=True) as terminal:
        assert terminal.wait() == code
        assert not any("━" in row or "tokens/s " in row for row in terminal.rows)
        assert any(row.startswith("stopped: ") for row in terminal.rows), terminal.rows
        end = {0: "the end", 1: "ZeroDivisionError: division by zero"}
        assert terminal.rows[-1] == end.get(code, terminal.rows[-1])


def test_an_interrupt_ends_the_bar(photos: Photos, endpoint: Endpoint) -> None:
    """Ctrl-C while the endpoint is silent removes the bar, and the traceback comes after it."""
    photos(8)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 4 else "held"
    with Terminal(script(endpoint), command=PYTHON, stdout=True) as terminal:
        terminal.until(r"answer 3", r" 50% 4/8 images ")
        terminal.interrupt()
        assert terminal.wait() == -2
        assert not any("━" in row or "tokens/s " in row for row in terminal.rows)
        assert terminal.rows[-1] == "KeyboardInterrupt"


def test_a_line_without_its_end_is_not_lost(photos: Photos, endpoint: Endpoint) -> None:
    """What the loop printed last without a line end appears at the end of the bar, before further lines."""
    photos(2)
    body = "kept = sys.stdout; print('no line end', end='')"
    with Terminal(script(endpoint, body), command=PYTHON, stdout=True) as terminal:
        assert terminal.wait() == 0
        assert sum(row.count("no line end") for row in terminal.rows) == 2
        assert terminal.rows[-1] == "the end"


def test_elsewhere_it_is_plain_lines(photos: Photos, endpoint: Endpoint) -> None:
    """Without a terminal, standard error has the lines of the command, and warns of nothing."""
    photos(3)
    done = run(script(endpoint), command=PYTHON)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^answer (\d)", done.stdout, re.MULTILINE) == ["0", "1", "2"]
    first, note, last = done.stderr.splitlines()
    assert first.startswith("using tiny-vision")
    assert "/api/show" in note
    assert last.startswith("finished: 3 answered")


def test_without_standard_error_nothing_is_shown(photos: Photos, endpoint: Endpoint) -> None:
    """A program without a console has no standard error; its run gives all results."""
    photos(3)
    name = script(endpoint)
    text = Path(name).read_text().replace("import sys", "import sys\nsys.stderr = None", 1)
    Path(name).write_text(text)
    done = run(name, command=PYTHON)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("the end\n")


IN_THREADS = """
import threading
from vlmbatch import run_batch

options = {{"backend": "ollama", "model": "tiny-vision", "base_url": "{url}", "concurrency": 2}}
runs = [threading.Thread(target=lambda: [*run_batch("photos", progress=True, **options)]) for _ in range(3)]
for run in runs:
    run.start()
for run in runs:
    run.join()
print("the end")
"""
IN_ONE_LOOP = """
import asyncio
from vlmbatch import run_batch

options = {{"backend": "ollama", "model": "tiny-vision", "base_url": "{url}", "concurrency": 2}}

async def one_run():
    return [result async for result in run_batch("photos", progress=True, **options)]

async def main():
    await asyncio.gather(*(one_run() for _ in range(3)))

asyncio.run(main())
print("the end")
"""


@pytest.mark.parametrize("text", [IN_THREADS, IN_ONE_LOOP], ids=["threads", "one loop"])
def test_one_of_several_runs_has_the_bar(text: str, photos: Photos, endpoint: Endpoint) -> None:
    """If several runs work at the same time, one draws the bar, and the others print lines above it."""
    photos(4)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 2 else "held"
    Path("script.py").write_text(text.format(url=endpoint.url))
    with Terminal("script.py", command=PYTHON, stdout=True, columns=100) as terminal:
        rows = terminal.until(r"(using tiny-vision[^━]*){3}━.* images .*\n.* endpoint up, 2 at once$")
        assert sum("━" in row for row in rows) == 1
        endpoint.released = True
        assert terminal.wait() == 0
        *rows, last = terminal.rows
        assert [row.split()[0] for row in rows] == ["using"] * 3 + ["finished:"] * 3
        assert last == "the end"


TAKING_TURNS = """
from contextlib import ExitStack
from vlmbatch.events import Notice
from vlmbatch.observers.progress import open_progress

with ExitStack() as runs:
    with open_progress(verbose=False) as first:
        second = runs.enter_context(open_progress(verbose=False))
        second(Notice(message="beside the first bar"))
    second(Notice(message="without a bar"))
    with open_progress(verbose=False) as third:
        second(Notice(message="beside the third run"))
        third(Notice(message="from the third run"))
"""


def test_lines_appear_above_the_bar_of_a_later_run(tmp_path: Path) -> None:
    """A run without a bar prints its lines above any bar, also above that of a run that began later."""
    script = tmp_path / "script.py"
    script.write_text(TAKING_TURNS)
    with Terminal(str(script), command=PYTHON) as terminal:
        assert terminal.wait() == 0
        assert terminal.rows == [
            "beside the first bar", "without a bar", "beside the third run", "from the third run",
        ]  # fmt: skip
        third = terminal.raw.partition(b"without a bar")[2]
        assert b"\x1b[2K" in third, "the third run has a bar, which each line replaces"


WITH_LOGS = """
import io
import logging
import sys
from vlmbatch import run_batch

logging.basicConfig(format="root: %(message)s")
own = logging.getLogger("own.part")
own.propagate = False
own.addHandler(logging.StreamHandler(sys.stdout))


class WithoutStream(logging.StreamHandler):
    def __init__(self):
        logging.Handler.__init__(self)

    emit = flush = lambda *args: None


class OddStream(io.StringIO):
    def __eq__(self, other):
        raise ValueError("not comparable")


logging.getLogger("odd").handlers = [WithoutStream(), logging.StreamHandler(OddStream())]
kept = [(handler, handler.stream) for handler in (*logging.root.handlers, *own.handlers)]

options = {{"backend": "ollama", "model": "tiny-vision", "base_url": "{url}", "concurrency": 2}}
for number, result in enumerate(run_batch("photos", progress=True, **options)):
    logging.warning("answer %s", number)
    new = logging.StreamHandler(io.StringIO())
    kept.append((new, new.stream))
    own.addHandler(new)
    own.warning("own: answer %s", number)
logging.warning("the end: %s", all(handler.stream is stream for handler, stream in kept))
"""


def test_log_lines_appear_above_the_bar(photos: Photos, endpoint: Endpoint) -> None:
    """Handlers made before the run write above the bar. After the run they write to their own streams.

    Handlers that are made during the run, or have an odd stream or none, stay as they are.
    """
    photos(4)
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 2 else "held"
    Path("script.py").write_text(WITH_LOGS.format(url=endpoint.url))
    with Terminal("script.py", command=PYTHON, stdout=True, columns=100) as terminal:
        terminal.until(r"own: answer 1", r"━.* 50% 2/4 images ")
        endpoint.released = True
        assert terminal.wait() == 0
        _, *answers, summary, last = terminal.rows
        assert answers == [f"{name}: answer {n}" for n in range(4) for name in ("root", "own")]
        assert summary.startswith("finished: 4 answered")
        assert last == "root: the end: True"


def test_the_program_may_remove_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a program closes or removes standard error during a run without a bar, its lines are dropped."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with open_progress(verbose=False) as observer:
        observer(Notice(message="before"))
        stream_text = stream.getvalue()
        stream.close()
        observer(Notice(message="closed"))
        monkeypatch.setattr(sys, "stderr", None)
        observer(Notice(message="gone"))
    assert "before" in stream_text


LOOP = """
from vlmbatch import run_batch

for result in run_batch("photos", backend="ollama", model="tiny-vision", base_url="{url}", progress=True):
    print("answer", result.id)
"""


@pytest.mark.long
def test_a_notebook_has_the_bar_in_its_cell(photos: Photos, endpoint: Endpoint) -> None:
    """In a real kernel the bar is one output of the cell; messages and summary replace it at the end.

    Answers that the loop prints are another output, also with `async for`, and if the loop is left.
    """
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from notebooks import Notebook

    folder = photos(6).parent
    endpoint.delay = 0.3
    endpoint.routes["/api/show"] = "500"
    cell = LOOP.format(url=endpoint.url)
    left = cell.replace("print(", "break; print(")
    notebook = Notebook([cell, cell.replace("for result", "async for result"), left], folder)
    *whole, (last,) = notebook.outputs
    for outputs in whole:
        shown, printed = sorted(outputs, key=lambda output: str(output.output_type))
        assert sorted(printed.text.split()[1::2]) == [f"photos/p{n:04}.jpg" for n in range(6)]
        lines = shown.data["text/plain"].splitlines()
        assert lines[0].startswith("using tiny-vision")
        assert "/api/show" in lines[1]
        assert lines[2].startswith("finished: 6 answered")
        assert len(lines) == 3
        assert "finished: 6 answered" in shown.data["text/html"]
    assert "\nstopped: " in last.data["text/plain"]
    updates = [content["data"]["text/html"] for kind, content in notebook.messages if "display" in kind]
    assert any(re.search(r"━.*endpoint up", update, re.DOTALL) for update in updates)
