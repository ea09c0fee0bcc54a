"""Claim: at an endpoint that is faster than the client, vlmbatch gets five times as many answers.

Images a second over the whole command, at 64 slots that take 20 ms for an answer, for images of 640x480 and
for photographs of 12 megapixels: vlmbatch and the plain approach, 64 at once.

    python benchmarks/throughput.py [--rounds 1] [--quick]
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, short, times
from measuring import contender, observe, rounds_of, vlmbatch, workplace

SLOTS = 64
LATENCY_S = 0.02
SMALL, PHOTOS = "640x480", "12 megapixels"
IMAGES = {SMALL: 5000, PHOTOS: 96}
ONCE = PHOTOS
QUICK_IMAGES = {SMALL: 60, PHOTOS: 2}
OURS, PLAIN = "vlmbatch", "plain: ollama, threads, gather"
MEASURED = f"""\
An endpoint in a process of its own answers {SLOTS} requests at once, {LATENCY_S * 1000:.0f} ms each,
so {SLOTS / LATENCY_S:,.0f} a second at most: the client is the limit. The real command runs over images
that are all different, from its start to its end. *plain* is benchmarks/contenders/plain.py with {SLOTS}
threads, which prepares all images, sends them, and then writes. The photographs are measured once."""

Rates = dict[str, dict[str, Spread]]


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    images = QUICK_IMAGES if effort.quick else IMAGES
    rates: Rates = {}
    with workplace() as folder, endpoints.slots(SLOTS, LATENCY_S) as url:
        folders = {
            SMALL: corpora.many(folder / "small", images[SMALL], corpora.SMALL_SIZE),
            PHOTOS: corpora.photographs(folder / "photos", images[PHOTOS]),
        }
        for kind, pictures in folders.items():
            ask = partial(vlmbatch, pictures, backend="ollama", base_url=url)
            commands = {
                OURS: partial(ask, concurrency=SLOTS),
                PLAIN: partial(contender, "plain", folder=pictures, url=url, concurrency=SLOTS),
            }
            runs = {name: partial(_rate, folder, images[kind], each) for name, each in commands.items()}
            measured = rounds_of(1 if kind == ONCE else effort.rounds, runs)
            rates[kind] = {name: Spread.of(figures) for name, figures in measured.items()}
    return [_claim(rates, images, effort)]


def _rate(folder: Path, count: int, command: Callable[..., list[str]]) -> float:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    observed = observe(command(output=output), output)
    with output.open() as records:
        assert sum(1 for _ in records) == count, output
    return count / observed.wall_s


def _claim(rates: Rates, images: dict[str, int], effort: Effort) -> Claim:
    rows = tuple(
        (kind, f"{images[kind]:,}", name, str(rate), f"{rate.median / beside[PLAIN].median:.1f}")
        for kind, beside in rates.items()
        for name, rate in beside.items()
    )
    ours, plain = rates[SMALL][OURS].median, rates[SMALL][PLAIN].median
    large, plain_large = rates[PHOTOS][OURS].median, rates[PHOTOS][PLAIN].median
    return Claim(
        name="throughput",
        title="Images a second at 64 slots",
        measured=MEASURED,
        rounds=effort.rounds,
        ratio=(
            f"At {SLOTS} slots vlmbatch answers {times(ours, plain)} as many images of {SMALL} a second as "
            f"the plain script ({short(ours)} to {short(plain)}), and {times(large, plain_large)} as many "
            f"photographs of {PHOTOS} ({short(large)} to {short(plain_large)})."
        ),
        tables=(Table(head=("", "images", "", "images/s", "times plain"), rows=rows),),
        panels=tuple(
            Panel(
                title=kind,
                unit="images a second",
                places=("",),
                series={name: (rate.median,) for name, rate in beside.items()},
            )
            for kind, beside in rates.items()
        ),
        short=(
            f"images a second at {SLOTS} slots, {SMALL}",
            short(ours),
            short(plain),
            f"{times(ours, plain)} as many",
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
