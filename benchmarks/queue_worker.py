"""Claim: a worker at the queue is as fast as a run over the same images.

Images a second over the whole command: `vlmbatch run` over a folder, and `vlmbatch worker --until-empty` with
the same images in the queue. The images lie below the folder of the store, so that neither copies them.

    python benchmarks/queue_worker.py [--rounds 3] [--quick]
"""

import sys
from functools import partial
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, short
from measuring import flags, observe, rounds_of, vlmbatch, workplace

GPU, FAST = "16 slots of 100 ms", "64 slots of 50 ms"
SLOTS = {GPU: (16, 0.1), FAST: (64, 0.05)}
IMAGES = {GPU: 2400, FAST: 4000}
QUICK_IMAGES = 40
RUN, WORKER = "vlmbatch run", "vlmbatch worker"
MEASURED = """\
An engine in a process of its own has 16 slots of 100 ms, so it answers 160 requests a second at most and is
the limit, or 64 slots of 50 ms: then the client is the limit. The images have 640x480 pixels and are all
different. Both commands run from their start to their end, with the number of slots as --concurrency. Redis
is on the same machine, without persistence. The jobs are in the queue before the worker starts."""

Rates = dict[str, dict[str, Spread]]


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    rates: Rates = {}
    counts = dict.fromkeys(IMAGES, QUICK_IMAGES) if effort.quick else IMAGES
    with workplace() as folder, endpoints.redis(folder) as queue:
        store = folder / "store"
        store.mkdir()
        for kind, (slots, latency_s) in SLOTS.items():
            pictures = corpora.many(store / kind.replace(" ", "-"), counts[kind], corpora.SMALL_SIZE)
            with endpoints.slots(slots, latency_s) as url:
                at = {"backend": "ollama", "base_url": url, "concurrency": slots}
                runs = {
                    RUN: partial(_run, folder, pictures, counts[kind], at),
                    WORKER: partial(_work, folder, store, pictures, queue, counts[kind], at),
                }
                measured = rounds_of(effort.rounds, runs)
            rates[kind] = {name: Spread.of(figures) for name, figures in measured.items()}
    return [_claim(rates, counts, effort)]


def _run(folder: Path, pictures: Path, count: int, at: dict[str, object]) -> float:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    observed = observe(vlmbatch(pictures, output=output, **at), output)
    with output.open() as records:
        assert sum(1 for _ in records) == count, output
    return count / observed.wall_s


def _work(folder: Path, store: Path, pictures: Path, queue: str, count: int, at: dict[str, object]) -> float:
    batch = f"b{len(list(folder.iterdir()))}"
    place = {"queue": queue, "store": store}
    command = (sys.executable, "-m", "vlmbatch")
    observe([*command, "enqueue", str(pictures), *flags(batch=batch, **place)])
    observed = observe([*command, "worker", *flags(until_empty=True, **place, **at)])
    output = folder / f"{batch}.jsonl"
    observe([*command, "collect", *flags(batch=batch, queue=queue, output=output)])
    with output.open() as records:
        assert sum(1 for _ in records) == count, output
    return count / observed.wall_s


def _claim(rates: Rates, counts: dict[str, int], effort: Effort) -> Claim:
    rows = tuple(
        (kind, f"{counts[kind]:,}", name, str(rate), f"{rate.median / beside[RUN].median:.2f}")
        for kind, beside in rates.items()
        for name, rate in beside.items()
    )
    shares = {kind: beside[WORKER].median / beside[RUN].median for kind, beside in rates.items()}
    return Claim(
        name="queue-worker",
        title="A worker at the queue",
        measured=MEASURED,
        rounds=effort.rounds,
        ratio=(
            f"With {GPU} the worker answers {shares[GPU]:.2f} times as many images a second as a run "
            f"({short(rates[GPU][WORKER].median)} to {short(rates[GPU][RUN].median)}), and with {FAST} "
            f"{shares[FAST]:.2f} times as many."
        ),
        tables=(Table(head=("engine", "images", "", "images/s", "times a run"), rows=rows),),
        panels=tuple(
            Panel(
                title=kind,
                unit="images a second",
                places=("",),
                series={name: (rate.median,) for name, rate in beside.items()},
            )
            for kind, beside in rates.items()
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=3))
