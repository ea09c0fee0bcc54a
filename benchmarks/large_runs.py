"""Claims: a million files take the memory of a hundred, and a million records are read back in seconds.

flat_memory.py and resume.py measure them; this module runs both.

    python benchmarks/large_runs.py [--rounds 1] [--quick]
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claim import Claim, Effort, Panel, Table, main, short, times
from measuring import environment

FILES, QUICK_FILES = (100, 10_000, 1_000_000), (100, 400)
RECORDS, QUICK_RECORDS = (1_000, 10_000, 100_000, 1_000_000), (100, 1_000)
SLOTS = 16
FIRST, GOES_ON = "first", "goes on"
OURS, LIST = "vlmbatch", "a list of records"
FLAT = f"""\
The real command over folders of small JPEGs, {SLOTS} at once (benchmarks/flat_memory.py): a first run,
which is stopped after 2,000 answers, when all files have been counted, and a run that goes on with
an output in which all but the last 2,000 are done. Peak memory of the process, including Python and
libraries, seconds from its start to its first record, and processor time of the whole run."""
RESUME = """\
Outputs with the table's number of answers (about 470 bytes each) are read back and all their images looked
up, as in a run that goes on with them (benchmarks/resume.py), each in a process of its own: by vlmbatch, and
as a list of all records, the obvious first solution. CPU, and the growth of the process."""
Rows = Sequence[dict[str, Any]]


def measure(effort: Effort) -> list[Claim]:
    """Measure both claims."""
    files, records = (QUICK_FILES, QUICK_RECORDS) if effort.quick else (FILES, RECORDS)
    return [
        _flat(_rows("flat_memory", files, SLOTS)),
        _resume(_rows("resume", records, effort.rounds), effort.rounds),
    ]


def _rows(module: str, sizes: Sequence[int], number: int) -> Rows:
    """The module's `rows`, from a fresh process: the peak of a child begins with its parent's."""
    code = (
        "import dataclasses, json, sys; module = __import__(sys.argv[1]);"
        "rows = module.rows(json.loads(sys.argv[2]), int(sys.argv[3]));"
        "[print(json.dumps(dataclasses.asdict(row))) for row in rows]"
    )
    command = [sys.executable, "-c", code, module, json.dumps(sizes), str(number)]
    print(f"{module}: {sizes}", file=sys.stderr, flush=True)
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _flat(rows: Rows) -> Claim:
    runs = {run: {row["files"]: row for row in rows if row["run"] == run} for run in (FIRST, GOES_ON)}
    few, many = min(runs[FIRST]), max(runs[FIRST])
    ratios = {run: runs[run][many]["memory"] / runs[run][few]["memory"] for run in runs}
    cells = tuple(
        (
            f"{row['files']:,}", row["run"], short(row["memory"] / 1e6),
            f"{row['memory'] / runs[row['run']][few]['memory']:.2f}", f"{row['first_s']:.2f}",
            f"{row['cpu_s']:.1f}",
        )
        for row in rows
    )  # fmt: skip
    head = ("files", "run", "peak memory, MB", f"times that of {few:,}", "s to the first record", "CPU s")
    return Claim(
        name="flat-memory",
        title="Memory and first record of a million files",
        measured=FLAT,
        rounds=1,
        ratio=(
            f"A first run over {many:,} files holds {ratios[FIRST]:.2f} times the memory of one over "
            f"{few:,}, one that goes on {ratios[GOES_ON]:.2f} times; its first record comes after "
            f"{runs[FIRST][many]['first_s']:.2f} s instead of {runs[FIRST][few]['first_s']:.2f} s."
        ),
        tables=(Table(head=head, rows=cells),),
        panels=(
            _panel("Peak memory", "MB", "files", runs, "memory", 1e6, logarithmic=False),
            _panel("Time to the first record", "s", "files", runs, "first_s", 1, logarithmic=True),
        ),
    )


def _resume(rows: Rows, rounds: int) -> Claim:
    ways = {way: {row["records"]: row for row in rows if row["way"] == way} for way in (OURS, LIST)}
    most = max(ways[OURS])
    ours, other = ways[OURS][most], ways[LIST][most]
    cells = tuple(
        (f"{row['records']:,}", row["way"], f"{row['cpu_s']:.3f}", short(row["memory"] / 1e6)) for row in rows
    )
    return Claim(
        name="resume",
        title="Going on with a million records",
        measured=RESUME,
        rounds=rounds,
        ratio=(
            f"Reading {most:,} records back takes vlmbatch {ours['cpu_s']:.2f} s of CPU and "
            f"{short(ours['memory'] / 1e6)} MB; the list takes {times(other['cpu_s'], ours['cpu_s'])} the "
            f"CPU and {times(other['memory'], ours['memory'])} the memory."
        ),
        tables=(Table(head=("records", "", "CPU s", "memory, MB"), rows=cells),),
        panels=(
            _panel("CPU", "s", "records", ways, "cpu_s", 1, logarithmic=True),
            _panel("Memory", "MB", "records", ways, "memory", 1e6, logarithmic=True),
        ),
    )


def _panel(
    title: str,
    unit: str,
    of_places: str,
    series: dict[str, dict[int, dict[str, Any]]],
    key: str,
    unit_size: float,
    *,
    logarithmic: bool,
) -> Panel:
    places = sorted({place for rows in series.values() for place in rows})
    return Panel(
        title=title,
        unit=unit,
        places=tuple(map(float, places)),
        of_places=of_places,
        series={n: tuple(max(rows[p][key] / unit_size, 0.001) for p in places) for n, rows in series.items()},
        logarithmic=logarithmic,
        logarithmic_places=True,
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
