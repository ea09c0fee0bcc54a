"""Claim: at 500 clients for a minute, each request to `vlmbatch serve` gets a reply, and its memory is flat.

The service has its default limit of 256 requests in work. A client that gets 503 waits as Retry-After says,
but one second at most, so that the service refuses requests all the time. A broken connection and a status
other than 200, 429 and 503 end the benchmark with an error.

    python benchmarks/service_many.py [--quick]

CI runs --quick, which takes a few seconds and does not judge memory.
"""

import statistics

import corpora
import endpoints
import services
from claim import Claim, Effort, Panel, Table, main, short
from measuring import rounds_of, workplace
from services import LOOK_S, Loaded

CLIENTS = 500
SLOTS, LATENCY_S = 64, 0.05
SECONDS, QUICK_SECONDS = 60.0, 4.0
MOST_GROWTH = 1.05
"""The last third of the time may hold this many times the memory of the second third."""
MB = 1_000_000
MEASURED = f"""\
{CLIENTS} clients in a process of their own send one request after the other for
{SECONDS:.0f} s over connections that stay open, with pictures of 640x480 (42 kB), all different, to
`vlmbatch serve` in front of an engine with {SLOTS} slots of {LATENCY_S * 1000:.0f} ms. The service has its
default limit of 256 requests in work and refuses others with 503; then a client waits for a second. Memory
(VmRSS) of the service is the mean of each third of the time. A broken connection, another status or an
answer that comes twice would end the benchmark with an error."""


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim; raises a RuntimeError if it is not true."""
    seconds = QUICK_SECONDS if effort.quick else SECONDS
    measured = rounds_of(effort.rounds, {"vlmbatch serve": lambda: _loaded(seconds)})["vlmbatch serve"]
    for loaded in measured:
        _check(loaded, judges_memory=not effort.quick)
    return [_claim(measured[0], effort)]


def _loaded(seconds: float) -> Loaded:
    with workplace() as folder, endpoints.slots(SLOTS, LATENCY_S) as engine:
        seeds = corpora.small(folder / "seeds", corpora.SEEDS)
        with services.vlmbatch(engine, folder / "log", concurrency=SLOTS) as service:
            return services.load(service, "/analyze", folder=seeds, clients=CLIENTS, seconds=seconds)


def _check(loaded: Loaded, *, judges_memory: bool) -> None:
    if loaded.failures:
        raise RuntimeError(f"the service failed: {loaded.failures}, {loaded.told}")
    _, second, last = _thirds(loaded)
    if judges_memory and last > MOST_GROWTH * second:
        raise RuntimeError(f"the memory grew from {second:.0f} to {last:.0f} bytes")


def _thirds(loaded: Loaded) -> tuple[float, float, float]:
    """The mean memory of each third of the time, in bytes."""
    samples = loaded.resident
    third = len(samples) // 3
    parts = samples[:third], samples[third : 2 * third], samples[2 * third :]
    first, second, last = map(statistics.fmean, parts)
    return first, second, last


def _claim(loaded: Loaded, effort: Effort) -> Claim:
    first, second, last = (held / MB for held in _thirds(loaded))
    return Claim(
        name="service-many",
        title=f"The service at {CLIENTS} clients for a minute",
        measured=MEASURED,
        rounds=effort.rounds,
        ratio=(
            f"All {loaded.answered + loaded.refused:,} requests got a reply: {loaded.answered:,} an answer, "
            f"{loaded.refused:,} the status 503. In its last third the service holds "
            f"{last / second:.2f} of the memory of the second ({short(last)} to {short(second)} MB)."
        ),
        tables=(
            Table(
                head=("answers", "answers/s", "503", "p50 ms", "p99 ms", "MB, first third", "second", "last"),
                rows=(
                    (
                        f"{loaded.answered:,}",
                        short(loaded.told["rate"]),
                        f"{loaded.refused:,}",
                        short(1000 * loaded.told["p50_s"]),
                        short(1000 * loaded.told["p99_s"]),
                        short(first),
                        short(second),
                        short(last),
                    ),
                ),
            ),
        ),
        panels=(
            Panel(
                title="Memory",
                unit="MB",
                places=tuple(LOOK_S * number for number in range(len(loaded.resident))),
                series={"vlmbatch serve": tuple(held / MB for held in loaded.resident)},
                of_places="seconds",
            ),
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=1))
