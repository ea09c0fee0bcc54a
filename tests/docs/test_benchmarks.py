"""The benchmarks run, the README has their figures, and the sweep over pictures finds wrong ones."""

import importlib
import subprocess
import sys
from base64 import b64decode, b64encode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command import environment
from documents import ROOT, page, section, table
from PIL import Image, ImageOps

from vlmbatch.config.groups import ImageOptions
from vlmbatch.images import PreparedImage, unread
from vlmbatch.imaging.prepare import prepare

CHEAP = {
    "slot_use": "slot-use",
    "start_up": "start-up",
    "auto_concurrency": "auto-concurrency",
    "pool": "pool",
    "many_answers": "many-answers",
    "service": "service",
    "service_many": "service-many",
    "queue_worker": "queue-worker",
}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
@pytest.mark.long
def test_cheap_benchmarks_give_tables_ratios_and_plots(tmp_path: Path) -> None:
    """In quick mode each cheap benchmark gives a table, a bold ratio, and a small plot with text as text."""
    command = [sys.executable, "benchmarks/run_all.py", "--quick", "--only", ",".join(CHEAP)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = (tmp_path / "RESULTS.md").read_text()
    for name in CHEAP.values():
        [told] = [part for part in results.split("\n## ") if f"plots/{name}.svg" in part]
        assert table(told), name
        assert any(line.startswith("**") and line.endswith("**") for line in told.splitlines()), name
        svg = tmp_path / "plots" / f"{name}.svg"
        texts = [text.text for text in ElementTree.parse(svg).iter(f"{SVG}text")]
        assert any(text and text[0].isdigit() for text in texts), name
        assert svg.stat().st_size < 60_000, name


def test_the_readme_has_the_measured_figures() -> None:
    """The README has the first two rows of the short table of RESULTS.md, and all its plots exist."""
    results = page("benchmarks/RESULTS.md")
    measured = table(section(results, "## In short"))
    assert len(measured) == 3
    lines = [
        line.lower()
        for line in section(page("README.md"), "## How fast it is").splitlines()
        if line[:2] == "- "
    ]
    for line, row in zip(lines, measured[:2], strict=True):
        assert all(cell.lower() in line for cell in row)
    plots = [line.rpartition("(")[2].rstrip(")") for line in results.splitlines() if line.startswith("![")]
    assert plots
    assert all((ROOT / "benchmarks" / plot).is_file() for plot in plots)


def negative(data: bytes, options: ImageOptions) -> PreparedImage:
    """A preparer that inverts the picture."""
    prepared = prepare(data, options)
    out = BytesIO()
    ImageOps.invert(Image.open(BytesIO(b64decode(prepared.data)))).save(out, "JPEG")
    return replace(prepared, data=b64encode(out.getvalue()))


def crashed(_data: bytes, _options: ImageOptions) -> PreparedImage:
    """A preparer that raises what would end a run."""
    raise ZeroDivisionError


def test_the_sweep_tells_wrong_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sweep calls a right picture right, and an inverted one and a crash wrong, with exit status 1."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    picture_sweep, case = importlib.import_module("picture_sweep"), importlib.import_module("sweep.case")
    webp = next(importlib.import_module("sweep.webp").cases())
    for preparer, verdict in ((prepare, "right"), (negative, "wrong"), (crashed, "wrong")):
        found = case.outcome(webp, preparer)
        assert (found.verdict, found.is_confirmed) == (verdict, True)
        assert picture_sweep.report([found], list_wrong=True) == (verdict == "wrong")
    assert "wrong: WebP lossy RGB" in capsys.readouterr().out


def test_a_warning_excuses_another_picture_but_not_scaled_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A different picture is wrong if the only warnings are about scaled values or about further frames."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    case = importlib.import_module("sweep.case")
    webp = next(importlib.import_module("sweep.webp").cases())
    scaled = "pixel values from 0 to 9 were scaled from black to white"
    for warnings, frames, verdict in (
        (("its colour profile cannot be used",), 1, "different, with a warning"),
        ((scaled,), 1, "wrong"),
        (unread(2), 2, "wrong"),
    ):
        warned = replace(negative(webp.data, case.OPTIONS), frames=frames, warnings=warnings)
        found = case.outcome(webp, lambda _data, _options, warned=warned: warned)
        assert found.verdict == verdict
