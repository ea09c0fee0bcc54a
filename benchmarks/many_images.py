"""Claims: vlmbatch takes as much memory for 10,000 images as for 100, and writes the first record at once.

Peak memory of the client process, and seconds from its start to the first line in its output, for 100 and
10,000 images, vlmbatch against the plain approach; and the first record over 100,000 files.

    python benchmarks/many_images.py [--rounds 1] [--quick]
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, short, times
from measuring import Observed, contender, observe, rounds_of, vlmbatch, workplace

SLOTS = 64
LATENCY_S = 0.05
SIZE, QUALITY = (1024, 768), 93
TINY = (64, 48)
COUNTS = (100, 10_000)
FILES = 100_000
QUICK_COUNTS, QUICK_FILES = (5, 50), 500
VLMBATCH, PLAIN = "vlmbatch", "plain: ollama, threads, gather"
MEASURED = f"""\
The real command over {{counts}} images of 1024x768 (164 kB), all different, {SLOTS} at once, and an
endpoint in a process of its own that answers after {LATENCY_S * 1000:.0f} ms. *plain* is
benchmarks/contenders/plain.py. Here it reads images as they are and decodes none, since preparing
{{most}} would take it minutes; vlmbatch checks that each is whole, and then sends it as it is, too."""
MEMORY = """
Memory is the peak of the client process (VmHWM), including libraries and Python."""
FIRST = """
The first record is the first whole line in the output file, in seconds from the start of the process.
vlmbatch also runs over {files} small files, and is ended at its first record."""

Runs = dict[int, dict[str, list[Observed]]]


def measure(effort: Effort) -> list[Claim]:
    """Measure both claims in the same runs."""
    counts, files = (QUICK_COUNTS, QUICK_FILES) if effort.quick else (COUNTS, FILES)
    runs: Runs = {}
    with workplace() as folder, endpoints.slots(SLOTS, LATENCY_S) as url:
        for count in counts:
            photos = corpora.many(folder / f"{count}", count, SIZE, QUALITY)
            plain = partial(contender, "plain", folder=photos, url=url, concurrency=SLOTS, as_is=True)
            ours = partial(vlmbatch, photos, backend="ollama", base_url=url, concurrency=SLOTS)
            one = partial(_run, folder, count)
            runs[count] = rounds_of(effort.rounds, {VLMBATCH: partial(one, ours), PLAIN: partial(one, plain)})
        tiny = corpora.many(folder / "tiny", files, TINY)
        ours = partial(vlmbatch, tiny, backend="ollama", base_url=url, concurrency=SLOTS)
        first = rounds_of(3, {VLMBATCH: partial(_run, folder, None, ours)})
    told = MEASURED.format(
        counts=" and ".join(f"{c:,}" for c in counts),
        most=f"{max(counts):,}",
    )
    return [
        _memory(runs, told + MEMORY, effort.rounds),
        _first_record({**runs, files: first}, told + FIRST.format(files=f"{files:,}"), effort.rounds),
    ]


def _run(folder: Path, count: int | None, command: partial[list[str]]) -> Observed:
    """One run to its end, or to its first record if `count` is None."""
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    observed = observe(command(output=output), output, first_only=count is None)
    if count is not None:
        with output.open() as records:
            assert sum(1 for _ in records) == count, output
    return observed


def _memory(runs: Runs, measured: str, rounds: int) -> Claim:
    held = {
        count: {name: Spread.of([o.peak_bytes / 1e6 for o in observed]) for name, observed in beside.items()}
        for count, beside in runs.items()
    }
    few, most = min(held), max(held)
    ours, plain = held[most][VLMBATCH].median, held[most][PLAIN].median
    return Claim(
        name="memory",
        title="Memory, whatever the number of images",
        measured=measured,
        rounds=rounds,
        ratio=(
            f"At {most:,} images the plain script holds {times(plain, ours)} the memory of vlmbatch "
            f"({short(plain)} MB to {short(ours)} MB); vlmbatch holds "
            f"{ours / held[few][VLMBATCH].median:.2f} of what it holds for {few:,}, "
            f"the plain script {short(plain / held[few][PLAIN].median)}."
        ),
        tables=(_table(held, "peak memory, MB", "of vlmbatch"),),
        panels=(_panel(held, "Peak memory", "MB"),),
        short=(
            f"memory at {most:,} images",
            f"{short(ours)} MB",
            f"{short(plain)} MB",
            f"{times(plain, ours)} less",
        ),
    )


def _first_record(runs: Runs, measured: str, rounds: int) -> Claim:
    first = {
        count: {name: Spread.of([_first(o) for o in observed]) for name, observed in beside.items()}
        for count, beside in runs.items()
    }
    most = max(count for count, beside in first.items() if PLAIN in beside)
    ours, plain = first[most][VLMBATCH].median, first[most][PLAIN].median
    return Claim(
        name="first-record",
        title="The first record",
        measured=measured,
        rounds=rounds,
        ratio=(
            f"The first record of {most:,} images comes after {ours:.2f} s, with the plain script after "
            f"{short(plain)} s: {times(plain, ours)} as long. Over {max(first):,} files it comes after "
            f"{first[max(first)][VLMBATCH].median:.2f} s."
        ),
        tables=(_table(first, "s to the first record", "of vlmbatch"),),
        panels=(_panel(first, "Time to the first record", "s"),),
    )


def _first(observed: Observed) -> float:
    assert observed.first_record_s is not None, observed.told
    return observed.first_record_s


def _table(figures: Mapping[int, Mapping[str, Spread]], unit: str, ratio: str) -> Table:
    rows = [
        (f"{count:,}", name, str(spread), short(spread.median / beside[VLMBATCH].median))
        for count, beside in figures.items()
        for name, spread in beside.items()
    ]
    return Table(head=("images", "", unit, f"times that {ratio}"), rows=tuple(rows))


def _panel(figures: Mapping[int, Mapping[str, Spread]], title: str, unit: str) -> Panel:
    names: Sequence[str] = (VLMBATCH, PLAIN)
    medians = {
        name: tuple(beside[name].median if name in beside else None for beside in figures.values())
        for name in names
    }
    return Panel(
        title=title,
        unit=unit,
        places=tuple(float(count) for count in figures),
        of_places="images",
        series=medians,
        logarithmic=True,
        logarithmic_places=True,
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
