"""Claim: vlmbatch keeps the slots of an endpoint busy, many more than a script.

Images a second and the share of busy slots at endpoints of 1 to 256 slots that take 100 ms for an answer, for
images of 640x480: vlmbatch with as many requests at once as slots, with `--concurrency auto`, and the plain
approach.

    python benchmarks/slot_use.py [--rounds 2] [--quick]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, short, times
from measuring import contender, observe, rounds_of, vlmbatch, workplace

LATENCY_S = 0.1
IMAGES = {1: 20, 8: 160, 64: 1500, 256: 1500}
QUICK_IMAGES = {8: 32}
MOST_PLAIN = 64  # threads; with more, the plain script gets no more answers
FIXED, AUTO, PLAIN = "vlmbatch, as many as slots", "vlmbatch, auto", "plain: ollama, threads, gather"
AGAIN = "vlmbatch, auto, later runs"
SHOWN_SLOTS = 64
MEASURED = f"""\
An endpoint in a process of its own has the table's number of slots, takes {LATENCY_S * 1000:.0f} ms for
an answer, and counts its busy slots. The client, the real command, sends images of 640x480 (42 kB), all
different. *Images a second* are over the whole command, from its start to its end; the ideal is slots
divided by latency. *Later runs* begin with the number that an earlier run stored. *Busy* is the mean
share of busy slots from one second after the first request to {LATENCY_S:g} s before the last answer,
if the run is long enough. *plain* is benchmarks/contenders/plain.py with as many threads as slots, but
{MOST_PLAIN} at most, which is also the comparison for 256 slots; it prepares all images before it sends
any, which *busy* does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Images a second over a whole run, and the share of busy slots in its middle (None if too short)."""

    rate: float
    busy: float | None


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    images = QUICK_IMAGES if effort.quick else IMAGES
    used: dict[int, dict[str, list[Used]]] = {}
    with workplace() as folder:
        for slots, count in images.items():
            photos = corpora.small(folder / f"{slots}", count)
            with endpoints.slots(slots, LATENCY_S) as url:
                one = partial(_used, folder, count, url)
                ask = partial(vlmbatch, photos, backend="ollama", base_url=url)
                plain = partial(contender, "plain", folder=photos, url=url, concurrency=slots)
                auto = partial(ask, concurrency="auto")
                cache_folder = folder / f"cache-{slots}"
                cache_folder.mkdir()
                one(auto, cache_folder)  # the later runs begin with the number that this run stores
                runs: dict[str, Callable[[], Used]] = {
                    FIXED: partial(one, partial(ask, concurrency=slots)),
                    AUTO: partial(one, auto),
                    AGAIN: partial(one, auto, cache_folder),
                }
                if slots <= MOST_PLAIN:
                    runs[PLAIN] = partial(one, plain)
                used[slots] = rounds_of(effort.rounds, runs)
    return [_claim(used, images, effort)]


def _used(
    folder: Path, count: int, url: str, command: Callable[..., list[str]], cache_folder: Path | None = None
) -> Used:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    endpoints.reset(url)
    observed = observe(command(output=output), output, cache_folder=cache_folder)
    with output.open() as records:
        assert sum(1 for _ in records) == count, output
    return Used(rate=count / observed.wall_s, busy=_middle(endpoints.stats(url)))


def _middle(stats: dict[str, Any]) -> float | None:
    """The mean share of busy slots after the first second, without the last answers."""
    step = stats["step_s"]
    steps = stats["busy"][round(1 / step) : -1 - round(LATENCY_S / step)]
    return sum(steps) / len(steps) if len(steps) > 1 else None


def _claim(used: dict[int, dict[str, list[Used]]], images: dict[int, int], effort: Effort) -> Claim:
    rates = {s: {n: Spread.of([u.rate for u in runs]) for n, runs in used[s].items()} for s in used}
    busy = {s: {n: _share(runs) for n, runs in used[s].items()} for s in used}
    most = SHOWN_SLOTS if SHOWN_SLOTS in rates else max(rates)
    shown, shared = rates[most], busy[most]
    rows = []
    for slots in used:
        for name in used[slots]:
            rate, plain, share = rates[slots][name], rates[min(slots, most)][PLAIN], busy[slots][name]
            ideal = slots / LATENCY_S
            rows.append((
                str(slots), f"{images[slots]:,}", name, str(rate), f"{rate.median / ideal:.2f}",
                f"{rate.median / plain.median:.1f}", _said(share),
            ))  # fmt: skip
    names = list(shown)
    places = tuple(f"{slots} slot{'s' * (slots > 1)}" for slots in used)
    return Claim(
        name="slot-use",
        title="Busy slots of an endpoint",
        measured=MEASURED,
        rounds=effort.rounds,
        ratio=(
            f"Once it runs, vlmbatch keeps {_said(shared[FIXED])} of {most} slots busy, with auto "
            f"{_said(shared[AUTO])} ({_said(shared[AGAIN])} in later runs), and the plain script "
            f"{_said(shared[PLAIN])}. It answers "
            f"{times(shown[FIXED].median, shown[PLAIN].median)} as many images a second as that "
            f"({short(shown[FIXED].median)} to {short(shown[PLAIN].median)}), with auto "
            f"{times(shown[AUTO].median, shown[PLAIN].median)} as many."
        ),
        tables=(
            Table(
                head=("slots", "images", "", "images/s", "of the ideal", "times plain", "busy"),
                rows=tuple(rows),
            ),
        ),
        panels=(
            Panel(
                title="Images a second over the whole command",
                unit="of the ideal",
                places=places,
                series={n: tuple(_ideally(rates[s].get(n), s) for s in used) for n in names},
            ),
            Panel(
                title="Busy slots, once it runs",
                unit="share of the slots",
                places=places,
                series={n: tuple(busy[s].get(n) for s in used) for n in names},
            ),
        ),
    )


def _share(runs: Sequence[Used]) -> float | None:
    shares = [used.busy for used in runs if used.busy is not None]
    return Spread.of(shares).median if shares else None


def _ideally(rate: Spread | None, slots: int) -> float | None:
    return None if rate is None else rate.median / (slots / LATENCY_S)


def _said(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=2))
