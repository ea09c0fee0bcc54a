"""Claim: several unequal endpoints together answer nearly as much as the sum of each alone, one dying or not.

Three endpoints of 2, 6 and 16 slots take 100 ms for an answer. Each runs alone for some seconds, then all
three as one pool. Last a pool gets a fixed number of images, and the endpoint of 6 slots is killed in the
middle: every image must be answered, and the rate of the two remaining endpoints counts.

    python benchmarks/pool.py [--rounds 1] [--quick]
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main
from measuring import observe, rounds_of, vlmbatch, workplace

LATENCY_S = 0.1
SLOTS = (2, 6, 16)
KILLED = 1
"""The index of the endpoint that is killed."""
RUN_S, QUICK_RUN_S = 6.0, 2.0
SEARCH_S = 3.0
TINY = (64, 48)
STOPPED = 6
POOL, DYING = "all three", "one of them killed"
MEASURED = f"""\
The real command with `--concurrency auto` sends small images (64x48, all different) for {{run:g}} s to
endpoints of {SLOTS[0]}, {SLOTS[1]} and {SLOTS[2]} slots, in processes of their own, which take 100 ms for an
answer. The endpoints count their answers a second, as busy slots divided by latency, from {{search:g}} s
on. The killed one ends without a word when half of the images are answered. From then on the rate of the
other two is measured, and compared with their rates alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Answers a second of the endpoints that lived to the end, and the number of images without an answer."""

    rate: float
    missing: int = 0


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    run_s = QUICK_RUN_S if effort.quick else RUN_S
    search_s = min(SEARCH_S, run_s / 2)
    with workplace() as folder:
        photos = corpora.many(folder / "photos", int(sum(SLOTS) / LATENCY_S * (run_s + 1)), TINY)
        few = corpora.many(folder / "few", int(sum(SLOTS) / LATENCY_S * run_s), TINY)
        runs: dict[str, Callable[[], Ran]] = {
            _alone(slots): partial(_asked, folder, photos, (slots,), run_s, search_s) for slots in SLOTS
        }
        runs[POOL] = partial(_asked, folder, photos, SLOTS, run_s, search_s)
        runs[DYING] = partial(_killed, folder, few)
        measured = rounds_of(effort.rounds, runs)
    return [_claim(measured, MEASURED.format(run=run_s, search=search_s), effort.rounds)]


def _alone(slots: int) -> str:
    return f"{slots} slots alone"


def _asked(folder: Path, photos: Path, slots: Sequence[int], run_s: float, search_s: float) -> Ran:
    """Run against endpoints of these slots for `run_s` seconds."""
    with ExitStack() as stack:
        urls = [stack.enter_context(endpoints.slots(number, LATENCY_S)) for number in slots]
        command = [*_command(folder, photos, urls), "--max-duration", f"{run_s}s"]
        observe(command, exits=(0, STOPPED))
        rate = sum(_rate(url, number, search_s) for url, number in zip(urls, slots, strict=True))
    return Ran(rate=rate)


def _killed(folder: Path, photos: Path) -> Ran:
    """Send every image to all three, and kill one when half of the images are answered."""
    images = len(list(photos.rglob("*.jpg")))
    with ExitStack() as stack:
        urls = [stack.enter_context(endpoints.slots(number, LATENCY_S)) for number in SLOTS]
        died_at: list[float] = []

        def kill() -> None:
            while sum(endpoints.stats(url)["answered"] for url in urls) < images / 2:
                time.sleep(0.05)
            died_at.append(max(len(endpoints.stats(url)["busy"]) for url in urls) * _step(urls[0]))
            endpoints.kill(urls[KILLED])

        killer = threading.Thread(target=kill)
        killer.start()
        command = _command(folder, photos, urls)
        observe(command)
        killer.join()
        left = [(url, number) for url, number in zip(urls, SLOTS, strict=True) if url != urls[KILLED]]
        rate = sum(_rate(url, number, died_at[0]) for url, number in left)
    output = Path(command[command.index("--output") + 1])
    records = [json.loads(line) for line in output.read_text().splitlines()]
    answered = {record["id"] for record in records if record["status"] == "ok"}
    return Ran(rate=rate, missing=images - len(answered))


def _command(folder: Path, photos: Path, urls: Sequence[str]) -> list[str]:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    several = [word for url in urls for word in ("--base-url", url)]
    return [*vlmbatch(photos, backend="vllm", output=output, prompt="?"), *several]


def _step(url: str) -> float:
    step: float = endpoints.stats(url)["step_s"]
    return step


def _rate(url: str, slots: int, from_s: float) -> float:
    """Answers a second from then on, without the end, when no new request comes."""
    stats = endpoints.stats(url)
    step = stats["step_s"]
    busy = stats["busy"][round(from_s / step) : -1 - round(2 * LATENCY_S / step)]
    return mean(busy or [0.0]) * slots / LATENCY_S


def _claim(measured: dict[str, list[Ran]], told: str, rounds: int) -> Claim:
    rates = {name: Spread.of([ran.rate for ran in runs]) for name, runs in measured.items()}
    alone = {slots: rates[_alone(slots)].median for slots in SLOTS}
    whole, left = sum(alone.values()), sum(alone.values()) - alone[SLOTS[KILLED]]
    missing = sum(ran.missing for ran in measured[DYING])
    share, share_left = rates[POOL].median / whole, rates[DYING].median / left
    rows = [(name, str(rates[name]), "") for name in map(_alone, SLOTS)]
    rows.append((POOL, str(rates[POOL]), f"{share:.2f} of their sum"))
    rows.append((DYING, str(rates[DYING]), f"{share_left:.2f} of the sum of the others"))
    return Claim(
        name="pool",
        title="Several endpoints against each alone",
        measured=told,
        rounds=rounds,
        ratio=f"A pool answers {share:.2f} of the sum of its endpoints alone; after one was killed, "
        f"{share_left:.2f} of the sum of the others, and {missing} images were left without an answer.",
        tables=(Table(head=("endpoints", "answers/s", ""), rows=tuple(rows)),),
        panels=(
            Panel(
                title="Endpoints that take 100 ms",
                unit="answers a second",
                places=tuple(rates),
                series={"auto": tuple(spread.median for spread in rates.values())},
            ),
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
