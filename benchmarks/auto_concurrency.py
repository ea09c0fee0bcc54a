"""Claim: `--concurrency auto` soon comes within a twentieth of the best fixed number, for any slots.

Endpoints of 1, 4 and 64 slots take 100 ms for an answer. The same images are sent for some seconds with
fixed numbers, with auto for the first time, and with auto again, which begins with the number that it found.
The number of busy slots counts: over the whole run, which includes the seconds in which auto still searches,
over its first second, and from the third second on.

    python benchmarks/auto_concurrency.py [--rounds 2] [--quick]
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import mean, median

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main
from measuring import observe, rounds_of, vlmbatch, workplace

LATENCY_S = 0.1
SEARCH_S = 3.0
RUN_S, QUICK_RUN_S = 5.0, 1.5
FIXED = {1: (1, 2), 4: (4, 8), 64: (64, 128)}
QUICK_FIXED = {4: (4,)}
TINY = (64, 48)
STOPPED = 6
AUTO, AGAIN = "auto", "auto, later runs"
PARTS = {"whole": "answers/s", "first": "in the first second", "later": f"after {SEARCH_S:g} s"}
"""For each part of a run, the field of Rates and its title."""
MEASURED = f"""\
The real command sends small images (64x48, all different) to endpoints with the table's number of slots, in
processes of their own, which take 100 ms for an answer. It stops after {{run:g}} s (`--max-duration`).
The endpoint counts its answers a second, as busy slots divided by latency: over the whole run from the
first request on, over its first second, and from {SEARCH_S:g} s on. *auto* has no
stored number; *auto, later runs* begins with the number that an earlier run stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Answers a second: in each step, over the whole run, and in its first and later seconds."""

    steps: tuple[float, ...]
    step_s: float
    whole: float
    first: float
    later: float


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    fixed, run_s = (QUICK_FIXED, QUICK_RUN_S) if effort.quick else (FIXED, RUN_S)
    rates: dict[int, dict[str, list[Rates]]] = {}
    with workplace() as folder:
        most = max(fixed) / LATENCY_S * (run_s + 1)
        photos = corpora.many(folder / "photos", int(most), TINY)
        for slots, numbers in fixed.items():
            with endpoints.slots(slots, LATENCY_S) as url:
                one = partial(_rates, folder, photos, slots, url, run_s)
                cache_folder = folder / f"cache-{slots}"
                cache_folder.mkdir()
                runs: dict[str, Callable[[], Rates]] = {
                    name: partial(one, name) for name in (*map(str, numbers), AUTO)
                }
                one(AUTO, cache_folder)  # the later runs begin with the number that this run stores
                runs[AGAIN] = partial(one, AUTO, cache_folder)
                rates[slots] = rounds_of(effort.rounds, runs)
    return [_claim(rates, MEASURED.format(run=run_s), effort.rounds)]


def _rates(
    folder: Path,
    photos: Path,
    slots: int,
    url: str,
    run_s: float,
    concurrency: str,
    cache_folder: Path | None = None,
) -> Rates:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    endpoints.reset(url)
    options = {"backend": "vllm", "base_url": url, "max_duration": f"{run_s}s", "prompt": "?"}
    command = vlmbatch(photos, output=output, concurrency=concurrency, **options)
    observe(command, exits=(0, STOPPED), cache_folder=cache_folder)
    stats = endpoints.stats(url)
    step = stats["step_s"]
    # requests in flight at the end are answered after it, while no new request comes
    steps = [share * slots / LATENCY_S for share in stats["busy"][: -1 - round(LATENCY_S / step)]]
    return Rates(
        steps=tuple(steps),
        step_s=step,
        whole=mean(steps),
        first=mean(steps[: round(1 / step)]),
        later=mean(steps[min(round(SEARCH_S / step), len(steps) // 2) :]),
    )


def _claim(rates: dict[int, dict[str, list[Rates]]], measured: str, rounds: int) -> Claim:
    rows, ratios = [], []
    for slots, runs in rates.items():
        parts = {
            part: {name: Spread.of([getattr(r, part) for r in told]) for name, told in runs.items()}
            for part in PARTS
        }
        share = {part: _of_the_best(spreads) for part, spreads in parts.items()}
        for name in runs:
            cells = [(str(parts[part][name]), f"{share[part][name]:.2f}") for part in PARTS]
            rows.append((str(slots), name, *(cell for pair in cells for cell in pair)))
        ratios.append(
            f"{share['later'][AUTO]:.2f} at {slots} slots ({share['whole'][AUTO]:.2f} over the whole run; in "
            f"later runs {share['whole'][AGAIN]:.2f}, and {share['first'][AGAIN]:.2f} in the first second)"
        )
    titles = (cell for title in PARTS.values() for cell in (title, "of the best"))
    return Claim(
        name="auto-concurrency",
        title="`--concurrency auto` against the best fixed number",
        measured=measured,
        rounds=rounds,
        ratio=f"After {SEARCH_S:g} s auto reaches, of the best fixed number, {', '.join(ratios)}.",
        tables=(Table(head=("slots", "concurrency", *titles), rows=tuple(rows)),),
        panels=tuple(_panel(slots, runs) for slots, runs in rates.items()),
    )


def _of_the_best(spreads: dict[str, Spread]) -> dict[str, float]:
    """Each median, divided by the best median of a fixed number."""
    best = max(spread.median for name, spread in spreads.items() if name not in (AUTO, AGAIN))
    return {name: spread.median / best for name, spread in spreads.items()}


def _panel(slots: int, runs: dict[str, list[Rates]]) -> Panel:
    """Answers a second over time, for auto and for as many requests as slots."""
    series = {name: _over_time(runs[name]) for name in (AUTO, AGAIN)}
    series |= {"as many as slots": _over_time(runs[str(slots)])}
    longest = max(len(steps) for steps in series.values())
    step_s = runs[AUTO][0].step_s * _MERGED
    return Panel(
        title=f"{slots} slot{'s' * (slots > 1)}",
        unit="answers a second",
        places=tuple((number + 0.5) * step_s for number in range(longest)),
        of_places="seconds since the first question",
        series={n: (*steps, *[None] * (longest - len(steps))) for n, steps in series.items()},
    )


_MERGED = 3  # steps for one point of the plot


def _over_time(told: list[Rates]) -> tuple[float, ...]:
    """The median over the rounds, in steps that are long enough to be smooth."""
    merged = [
        [mean(rates.steps[at : at + _MERGED]) for at in range(0, len(rates.steps) - _MERGED + 1, _MERGED)]
        for rates in told
    ]
    columns = zip_longest(*merged)
    return tuple(median(rate for rate in column if rate is not None) for column in columns)


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=2))
