"""Claim: at 64 clients, `vlmbatch serve` answers far more requests a second than the app of a tutorial.

Requests a second and latency at 64 clients, each with one request after the other, in front of an engine with
64 slots of 50 ms, for images of 640x480: `vlmbatch serve`, and a FastAPI app with the ollama package, whose
handler is `async def` as beginners write it, or `def`.

    python benchmarks/service.py [--rounds 3] [--quick]
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import corpora
import endpoints
import services
from claim import Claim, Effort, Panel, Spread, Table, main, short, times
from measuring import rounds_of, workplace
from services import Loaded, Service

CLIENTS = SLOTS = 64
LATENCY_S = 0.05
SECONDS, WARM_S = 12.0, 5.0
QUICK_SECONDS, QUICK_WARM_S = 2.0, 0.5
OURS, BLOCKING, THREADS = "vlmbatch serve", "plain app, async def", "plain app, def"
MEASURED = f"""\
{CLIENTS} clients in a process of their own send one request after the other over connections that stay open:
a picture of 640x480 (42 kB) in base64 in JSON, and all pictures are different. An engine in a process of its
own answers {SLOTS} requests at once, {LATENCY_S * 1000:.0f} ms each, so
{SLOTS / LATENCY_S:,.0f} a second at most: the service is the limit. *plain app* is
benchmarks/contenders/plain_app.py under `uvicorn plain_app:app`, a process for each row. Its handlers decode
the base64 and call `ollama.chat`; `async def` blocks the event loop, `def` uses 40 threads. vlmbatch checks
each picture, too. Each service is warm: the first {WARM_S:.0f} s are not counted, the next
{SECONDS:.0f} s are. CPU is that of the service."""

Start = Callable[[], AbstractContextManager[Service]]
Measured = dict[str, list[Loaded]]


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    seconds, warm = (QUICK_SECONDS, QUICK_WARM_S) if effort.quick else (SECONDS, WARM_S)
    with workplace() as folder, endpoints.slots(SLOTS, LATENCY_S) as engine:
        seeds = corpora.small(folder / "seeds", corpora.SEEDS)
        log = folder / "log"
        ours = partial(services.vlmbatch, engine, log, concurrency=SLOTS)
        plain = partial(services.plain, engine, log)
        each: dict[str, tuple[Start, str]] = {
            OURS: (ours, "/analyze"),
            BLOCKING: (plain, "/async/analyze"),
            THREADS: (plain, "/def/analyze"),
        }
        options = {"folder": seeds, "clients": CLIENTS, "seconds": seconds, "warm": warm}
        runs = {name: partial(_loaded, start, path, options) for name, (start, path) in each.items()}
        measured = rounds_of(effort.rounds, runs)
    return [_claim(measured, effort)]


def _loaded(start: Start, path: str, options: dict[str, float | Path]) -> Loaded:
    """A fresh service under load; all its replies have to be answers of the engine."""
    with start() as service:
        loaded = services.load(service, path, **options)
    if loaded.failures or loaded.refused:
        raise RuntimeError(f"not all requests to {path} got answers of their own: {loaded.told}")
    return loaded


def _claim(measured: Measured, effort: Effort) -> Claim:
    rates = _spreads(measured, lambda loaded: loaded.told["rate"])
    halves = _spreads(measured, lambda loaded: 1000 * loaded.told["p50_s"])
    slowest = _spreads(measured, lambda loaded: 1000 * loaded.told["p99_s"])
    cpu = _spreads(measured, lambda loaded: 1000 * loaded.cpu_s / loaded.answered)
    rows = tuple(
        (
            name,
            str(rates[name]),
            f"{rates[name].median / rates[BLOCKING].median:.1f}",
            str(halves[name]),
            str(slowest[name]),
            f"{slowest[name].median / slowest[BLOCKING].median:.2f}",
            str(cpu[name]),
        )
        for name in measured
    )
    ours, blocking, threads = (rates[name].median for name in (OURS, BLOCKING, THREADS))
    return Claim(
        name="service",
        title=f"The service at {CLIENTS} clients",
        measured=MEASURED,
        rounds=effort.rounds,
        ratio=(
            f"`vlmbatch serve` answers {times(ours, blocking)} as many requests a second as the app with "
            f"`async def` ({short(ours)} to {short(blocking)}), and {times(ours, threads)} as many as the "
            f"one with `def` ({short(threads)}). Its p99 is {_of(slowest, BLOCKING)} and "
            f"{_of(slowest, THREADS)} of theirs."
        ),
        tables=(
            Table(
                head=("", "requests/s", "times async def", "p50 ms", "p99 ms", "of async def", "CPU ms"),
                rows=rows,
            ),
        ),
        panels=(
            Panel(
                title="Throughput",
                unit="requests a second",
                places=tuple(measured),
                series={"": tuple(rate.median for rate in rates.values())},
            ),
            Panel(
                title="Latency, 99 of 100 requests",
                unit="milliseconds",
                places=tuple(measured),
                series={"": tuple(latency.median for latency in slowest.values())},
            ),
        ),
    )


def _spreads(measured: Measured, figure: Callable[[Loaded], float]) -> dict[str, Spread]:
    return {name: Spread.of([figure(loaded) for loaded in rounds]) for name, rounds in measured.items()}


def _of(latencies: dict[str, Spread], other: str) -> str:
    return f"{latencies[OURS].median / latencies[other].median:.2f}"


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=3))
