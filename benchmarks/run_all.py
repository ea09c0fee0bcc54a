"""Measures all claims and writes benchmarks/RESULTS.md, their plots, and two lines in the README.

It takes about twenty minutes on two idle cores. With --quick everything runs with tiny counts in about
one minute, and is written to --out, or nowhere: that only proves that it runs.

    python benchmarks/run_all.py [--only client_cost,slot_use] [--quick] [--out FOLDER]
"""

import argparse
import importlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
from claim import Claim, Effort, Table

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
HEADING = "## How fast it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A module with `measure(effort) -> claims`, and its number of rounds."""

    module: str
    rounds: int


BENCHMARKS = (
    Benchmark(module="client_cost", rounds=2),
    Benchmark(module="slot_use", rounds=2),
    Benchmark(module="throughput", rounds=2),
    Benchmark(module="many_images", rounds=1),
    Benchmark(module="start_up", rounds=2),
    Benchmark(module="short_runs", rounds=2),
    Benchmark(module="auto_concurrency", rounds=1),
    Benchmark(module="pool", rounds=1),
    Benchmark(module="service", rounds=3),
    Benchmark(module="service_many", rounds=1),
    Benchmark(module="queue_worker", rounds=3),
    Benchmark(module="real_engine", rounds=2),
    Benchmark(module="large_runs", rounds=1),
    Benchmark(module="many_answers", rounds=1),
)
NOTE = """\
All contenders of a table ran in turn in one run. Ratios hold on other machines better than
milliseconds. `just bench` measures everything again and writes this page; `python
benchmarks/client_cost.py` and its neighbours measure one claim each."""
SOURCE = (
    "[benchmarks/RESULTS.md](benchmarks/RESULTS.md) has all figures, the machine and the way of measuring."
)
SHORT_HEAD = ("", "vlmbatch", "plain script", "")


def measure(benchmarks: Sequence[Benchmark], *, quick: bool) -> list[Claim]:
    """Measure the claims of all benchmarks, and print the duration of each on standard error."""
    claims: list[Claim] = []
    for benchmark in benchmarks:
        began = time.monotonic()
        effort = Effort(rounds=1 if quick else benchmark.rounds, quick=quick)
        claims += importlib.import_module(benchmark.module).measure(effort)
        print(f"{benchmark.module}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return claims


def results_page(claims: Sequence[Claim], before: str) -> str:
    """The text of RESULTS.md; `before` is the load of the machine at the start."""
    lines = [*machine.describe(), f"load averages at the start {before}; at the end {machine.load()}"]
    about = "\n".join(f"- {line}" for line in lines)
    sections = [claim.markdown("plots") for claim in claims]
    parts = ["# How fast vlmbatch is", NOTE, about, "## In short", in_short(claims), *sections]
    return "\n\n".join(parts) + "\n"


def in_short(claims: Sequence[Claim]) -> str:
    """The table of the claims that matter most."""
    return Table(head=SHORT_HEAD, rows=tuple(claim.short for claim in claims if claim.short)).markdown()


def readme_section(claims: Sequence[Claim]) -> str:
    """The section of the README: the first two claims that matter, a line each."""
    shorts = [claim.short for claim in claims if claim.short][:2]
    lines = [
        f"- {what[0].upper()}{what[1:]}: {ours}, with a plain script {plain} ({ratio})."
        for what, ours, plain, ratio in shorts
    ]
    return "\n".join([HEADING, "", *lines, "", SOURCE, "", ""])


def with_section(readme: str, section: str) -> str:
    """The README with this section instead of the old one.

    Raises:
        ValueError: the README has no such section.
    """
    changed, found = re.subn(rf"^{HEADING}\n.*?(?=^## )", lambda _: section, readme, flags=re.M | re.S)
    if found != 1:
        raise ValueError(f"README.md has no section {HEADING!r}")
    return changed


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="these modules, separated by commas; written only to --out")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--out", type=Path, help="write results and plots there and leave the project as it is"
    )
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [benchmark.module for benchmark in BENCHMARKS]
    whole = not (given.quick or given.only)
    before = machine.load()
    claims = measure([b for b in BENCHMARKS if b.module in names], quick=given.quick)
    page = results_page(claims, before)
    print(page)
    with tempfile.TemporaryDirectory() as nowhere:
        out = given.out or (HERE if whole else Path(nowhere))
        out.mkdir(parents=True, exist_ok=True)
        (out / "RESULTS.md").write_text(page)
        from plots import draw  # matplotlib takes a second to load

        for claim in claims:
            draw(claim, out / "plots")
    if whole and not given.out:
        README.write_text(with_section(README.read_text(), readme_section(claims)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
