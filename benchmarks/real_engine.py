"""Claim: vlmbatch gets more answers a second out of a real engine than scripts, with less CPU.

llama.cpp with the demonstration model on this machine's CPU, over HTTP as an OpenAI-compatible server and
inside the process: vlmbatch, a loop that sends one image at a time, and the plain approach. Needs the extra
embedded.

    python benchmarks/real_engine.py [--rounds 2] [--quick]
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, times
from measuring import Observed, contender, observe, rounds_of, vlmbatch, workplace

SLOTS = 4
MODEL = "pixie-q8_0.gguf"
HTTP, INSIDE = "vlmbatch, HTTP", "vlmbatch, in-process"
LOOP, PLAIN = "one by one: openai, a loop", "plain: openai, threads, gather"
MEASURED = """\
llama.cpp ({slots} slots) with the demonstration model that comes with vlmbatch, and {count} images of
640x480, with one thread less than the machine has cores. Over HTTP it is a server; in-process the command
loads it.
Images a second are over the whole command. CPU is the client's own
(in-process with the engine's), in milliseconds an image. All HTTP clients use the OpenAI wire; *one by
one* is benchmarks/contenders/one_by_one.py, *plain* is plain.py with {slots} threads."""


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    count = 4 if effort.quick else 60
    with workplace() as folder, endpoints.llama_cpp() as url:
        photos = corpora.small(folder / "photos", count)
        one = partial(_run, folder, count)
        ask = partial(vlmbatch, photos, max_tokens=64, accept="length,loop")
        script = {"folder": photos, "url": url, "wire": "openai", "model": MODEL, "concurrency": SLOTS}
        runs: dict[str, Callable[[], Observed]] = {
            HTTP: partial(one, partial(ask, backend="openai", base_url=f"{url}/v1", concurrency=SLOTS)),
            INSIDE: partial(one, partial(ask, backend="llama-cpp", concurrency=SLOTS)),
            LOOP: partial(one, partial(contender, "one_by_one", **script)),
            PLAIN: partial(one, partial(contender, "plain", **script)),
        }
        one(partial(contender, "one_by_one", **script))  # the engine is as warm for the first as for the last
        observed = rounds_of(effort.rounds, runs)
    measured = MEASURED.format(slots=SLOTS, count=count)
    return [_claim(observed, count, measured, effort.rounds)]


def _run(folder: Path, count: int, command: Callable[..., list[str]]) -> Observed:
    output = folder / f"{len(list(folder.iterdir()))}.jsonl"
    observed = observe(command(output=output), output)
    with output.open() as records:
        assert sum(1 for _ in records) == count, observed.told
    return observed


def _claim(observed: dict[str, list[Observed]], count: int, measured: str, rounds: int) -> Claim:
    rate = {name: Spread.of([count / o.wall_s for o in runs]) for name, runs in observed.items()}
    cpu = {name: Spread.of([1000 * o.cpu_s / count for o in runs]) for name, runs in observed.items()}
    ours = rate[HTTP].median
    rows = [
        (name, str(rate[name]), f"{rate[name].median / rate[PLAIN].median:.2f}", str(cpu[name]))
        for name in rate
    ]
    return Claim(
        name="real-engine",
        title="A real engine",
        measured=measured,
        rounds=rounds,
        ratio=(
            f"vlmbatch gets {times(ours, rate[LOOP].median)} as many answers a second out of llama.cpp as "
            f"the loop, {times(ours, rate[PLAIN].median)} as many as the plain script; with the engine "
            f"in-process {times(rate[INSIDE].median, rate[PLAIN].median)} as many."
        ),
        tables=(Table(head=("", "images/s", "of plain", "client CPU ms an image"), rows=tuple(rows)),),
        panels=(
            Panel(
                title=f"llama.cpp, {SLOTS} slots, on this CPU",
                unit="images a second",
                places=tuple(rate),
                series={"": tuple(spread.median for spread in rate.values())},
            ),
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=2))
