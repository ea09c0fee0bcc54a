"""Claim: `--concurrency auto` ends within a tenth of the best fixed concurrency, whatever the slots.

For endpoints of 1, 4 and 64 slots the same images are asked about with fixed concurrencies and with auto,
one after the other in each round, and the medians over the rounds are compared: over the whole run, which
holds the seconds in which auto still searches, and over its second half. Exit status 1 where the second
half of auto is below nine tenths of the best fixed one.

    python benchmarks/auto_concurrency.py [--slots 1,4,64] [--rounds 3] [--answers-per-slot 40]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vlmbatch import run_batch
from vlmbatch.events import ConcurrencyChanged, Event

LATENCY_S = {1: 0.05, 4: 0.1}
FIXED = (1, 2, 4, 8, 16, 32, 64, 128)
GOOD = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Answers a second over a whole run and over its second half, and the limit at its end."""

    whole: float
    half: float
    limit: int


@contextmanager
def endpoint(slots: int) -> Iterator[str]:
    """An endpoint in a process of its own, so that it takes no time of the client's."""
    server = Path(__file__).with_name("slots_server.py")
    latency = str(LATENCY_S.get(slots, 0.5))
    command = [sys.executable, str(server), "--slots", str(slots), "--latency", latency]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def measure(folder: Path, url: str, concurrency: int | None, images: int) -> Measured:
    """One run over the first so many images."""
    limits = [concurrency or 0]

    def hear(event: Event) -> None:
        if isinstance(event, ConcurrencyChanged):
            limits.append(event.concurrency)

    batch = run_batch(
        folder,
        backend="vllm",
        base_url=url,
        concurrency=concurrency,
        limit=images,
        prompt="?",
        observers=[hear],
    )
    times = []
    for result in batch:
        assert result.ok, result
        times.append(time.monotonic())
    middle = len(times) // 2
    return Measured(
        whole=(len(times) - 1) / (times[-1] - times[0]),
        half=(len(times) - 1 - middle) / (times[-1] - times[middle]),
        limit=limits[-1],
    )


def compare(folder: Path, slots: int, rounds: int, images: int) -> bool:
    """Print the table of one endpoint, and tell whether auto is good enough."""
    candidates: list[int | None] = [*(c for c in FIXED if slots / 4 <= c <= 4 * slots), None]
    runs: dict[int | None, list[Measured]] = {c: [] for c in candidates}
    with endpoint(slots) as url:
        for _ in range(rounds):
            for candidate in candidates:
                runs[candidate].append(measure(folder, url, candidate, images))
    whole = {c: statistics.median(m.whole for m in runs[c]) for c in candidates}
    half = {c: statistics.median(m.half for m in runs[c]) for c in candidates}
    best_whole = max(rate for c, rate in whole.items() if c)
    best_half = max(rate for c, rate in half.items() if c)
    print(f"\n{slots} slots, {images} images, medians of {rounds} rounds\n")
    print("| concurrency | images/s | of the best | second half | of the best |\n|---|---|---|---|---|")
    for c in candidates:
        limits = ", ".join(str(m.limit) for m in runs[c])
        name = str(c) if c else f"auto (ends at {limits})"
        print(
            f"| {name} | {whole[c]:.1f} | {whole[c] / best_whole:.2f} | {half[c]:.1f} "
            f"| {half[c] / best_half:.2f} |",
            flush=True,
        )
    return half[None] >= GOOD * best_half


def main() -> int:
    """Compare at each number of slots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slots", default="1,4,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers-per-slot", type=int, default=40)
    given = parser.parse_args()
    good = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        sizes = {int(slots) for slots in given.slots.split(",")}
        numbers = {slots: max(200, slots * given.answers_per_slot) for slots in sizes}
        for n in range(max(numbers.values())):
            Image.new("RGB", (64, 48), (n % 256, n // 256 % 256, 99)).save(
                folder / f"{n:05}.jpg", comment=str(n)
            )
        for slots in sorted(sizes):
            good.append(compare(folder, slots, given.rounds, numbers[slots]))
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
