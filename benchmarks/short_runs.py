"""Claim: on Ollama, a short run is as fast as a plain loop at one slot, and as the best fixed number at more.

A hundred images at endpoints of 1 and 4 slots that take 25 ms for an answer: vlmbatch with a fixed
number, with auto for the first time and in later runs. The comparison is a loop with the ollama package. If
VLMBATCH_TEST_OLLAMA has the URL and the model of a real server, the same is measured there.

    python benchmarks/short_runs.py [--rounds 3] [--quick]
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main
from measuring import contender, observe, rounds_of, vlmbatch, workplace

LATENCY_S = 0.025
COUNT, QUICK_COUNT = 100, 8
SPARE = 1  # one request waits at the endpoint, so that a free slot has work at once
FIXED, AUTO, AGAIN = "vlmbatch, slots and one", "vlmbatch, auto", "vlmbatch, auto, later runs"
LOOP = "one by one: ollama, a loop"
REAL_SLOTS = 4
MEASURED = """\
{count} images of 640x480 (42 kB), all different, at endpoints with the table's number of slots, in processes
of their own, which take {latency:g} ms for an answer. *Seconds* are those of the whole command. *Images*
are the seconds from the first record to the end: without the start and the questions before the first image.
*auto* has no stored number; *later runs* begin with the number that it stored. *One by one* is
benchmarks/contenders/one_by_one.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Seconds of a whole command, and from its first record to its end."""

    whole_s: float
    images_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server, its model, and how many requests it processes at once."""

    name: str
    url: str
    model: str | None
    slots: int


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    count = QUICK_COUNT if effort.quick else COUNT
    took: dict[str, dict[str, list[Took]]] = {}
    with workplace() as folder:
        photos = corpora.small(folder / "photos", count)
        for slots in (1, 4):
            with endpoints.slots(slots, LATENCY_S) as url:
                server = Server(name=str(slots), url=url, model=None, slots=slots)
                took[server.name] = rounds_of(effort.rounds, _runs(folder, photos, server))
        real = os.environ.get("VLMBATCH_TEST_OLLAMA", "").split()
        if real:
            url, model = real
            server = Server(name="real", url=url, model=model, slots=REAL_SLOTS)
            took[server.name] = rounds_of(effort.rounds, _runs(folder, photos, server))
    measured = MEASURED.format(count=count, latency=1000 * LATENCY_S)
    return [_claim(took, measured, effort.rounds)]


def _runs(folder: Path, photos: Path, server: Server) -> dict[str, Callable[[], Took]]:
    one = partial(_took, folder)
    ask = partial(vlmbatch, photos, backend="ollama", base_url=server.url, model=server.model)
    script = {"folder": photos, "url": server.url, "model": server.model}
    cache_folder = folder / f"cache-{server.name}"
    cache_folder.mkdir()
    auto = partial(ask, concurrency="auto")
    one(auto, cache_folder)  # the later runs begin with the number that this run stores
    return {
        FIXED: partial(one, partial(ask, concurrency=server.slots + SPARE)),
        AUTO: partial(one, auto),
        AGAIN: partial(one, auto, cache_folder),
        LOOP: partial(one, partial(contender, "one_by_one", **script)),
    }


def _took(folder: Path, command: Callable[..., list[str]], cache_folder: Path | None = None) -> Took:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    observed = observe(command(output=output), output, cache_folder=cache_folder)
    assert observed.first_record_s is not None, observed.told
    return Took(whole_s=observed.wall_s, images_s=observed.wall_s - observed.first_record_s)


def _claim(took: dict[str, dict[str, list[Took]]], measured: str, rounds: int) -> Claim:
    whole = {
        s: {n: Spread.of([t.whole_s for t in told]) for n, told in runs.items()} for s, runs in took.items()
    }
    images = {
        s: {n: Spread.of([t.images_s for t in told]) for n, told in runs.items()} for s, runs in took.items()
    }
    rows = [
        (
            server,
            name,
            str(whole[server][name]),
            f"{whole[server][LOOP].median / whole[server][name].median:.2f}",
            str(images[server][name]),
            f"{images[server][LOOP].median / images[server][name].median:.2f}",
        )
        for server in took
        for name in took[server]
    ]
    faster = {
        server: {name: spreads[LOOP].median / spreads[name].median for name in (AUTO, AGAIN, FIXED)}
        for server, spreads in whole.items()
    }
    told = [
        f"{ours[AUTO]:.2f} times as fast as a loop at {server} ({ours[AGAIN]:.2f} in later runs, "
        f"{ours[FIXED]:.2f} with the best fixed number)"
        for server, ours in faster.items()
    ]
    return Claim(
        name="short-runs",
        title="Short runs on Ollama",
        measured=measured,
        rounds=rounds,
        ratio=f"By slots, a short run with auto is {', '.join(told)}.",
        tables=(
            Table(
                head=("slots", "", "seconds", "times the loop", "images", "times the loop"), rows=tuple(rows)
            ),
        ),
        panels=(
            Panel(
                title="Short runs on Ollama",
                unit="seconds of the whole command",
                places=tuple(took),
                series={
                    name: tuple(whole[server][name].median for server in took) for name in (AUTO, AGAIN, LOOP)
                },
            ),
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=3))
