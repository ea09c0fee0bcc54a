"""The benchmarks run, and the README has their figures."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command import environment
from documents import ROOT, page, section, table

CHEAP = {
    "slot_use": "slot-use",
    "start_up": "start-up",
    "auto_concurrency": "auto-concurrency",
    "pool": "pool",
}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.slow
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
    """The README has the short table of benchmarks/RESULTS.md, and all plots of that page exist."""
    results = page("benchmarks/RESULTS.md")
    measured = table(section(results, "## In short"))
    assert len(measured) == 3
    assert table(section(page("README.md"), "## How fast it is")) == measured
    plots = [line.rpartition("(")[2].rstrip(")") for line in results.splitlines() if line.startswith("![")]
    assert plots
    assert all((ROOT / "benchmarks" / plot).is_file() for plot in plots)
