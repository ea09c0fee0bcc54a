"""Claim: whatever a server replies costs one image, one hint or that endpoint, and never the run.

Hypothesis changes the recorded replies of real servers, and a server on loopback sends them to the real
backends, on every route. Each outcome must be an answer, whose record is strict JSON, or an error of ours.
The exit status is 1 if there was another exception, a stall of the event loop over two seconds, or memory
that grew by more than 300 MB.

    python benchmarks/fuzz_replies.py [--replies 10000] [--seed 1]
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fuzz_replies import Case, Fuzzing, cases

MOST_STALL_S = 2.0
MOST_GROWTH = 300_000_000
BATCH = 100
"""Replies of one seed."""


def peak() -> int:
    """The peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Worst:
    """The worst of all replies so far."""

    tracebacks: int = 0
    stall_s: float = 0.0
    stalled_by: str = ""


def fuzz(replies: int, first_seed: int, folder: Path) -> bool:
    """Send the replies and print what came of them; returns whether the claim holds."""
    worst, before = Worst(), 0
    with asyncio.Runner() as runner:
        started = Fuzzing.started(folder / "prices.json")
        fuzzing = runner.run(started.__aenter__())

        def meet(case: Case) -> None:
            fuzzing.longest_stall_s = 0.0
            try:
                runner.run(fuzzing.meet(case))
            except Exception:  # noqa: BLE001  # the benchmark counts them all
                worst.tracebacks += 1
                traceback.print_exc()
                print(f"{case.work} of {case.kind}: {case.raw[:2000]!r}", file=sys.stderr)
            if fuzzing.longest_stall_s > worst.stall_s:
                worst.stall_s, worst.stalled_by = fuzzing.longest_stall_s, f"{case.work}: {case.raw[:300]!r}"

        for number in range(-(-replies // BATCH)):  # Hypothesis keeps the cases of a batch in memory
            meet_some(meet, first_seed + number)
            before = before or peak()
        runner.run(started.__aexit__(None, None, None))
    grown = peak() - before
    for outcome, count in fuzzing.outcomes.most_common():
        print(f"{count:6} {outcome}")
    total = sum(fuzzing.outcomes.values()) + worst.tracebacks
    print(f"{total:,} replies, {worst.tracebacks} tracebacks; the memory grew by {grown / 1e6:.0f} MB")
    print(f"the longest stall took {worst.stall_s:.2f} s: {worst.stalled_by}")
    return worst.tracebacks == 0 and worst.stall_s < MOST_STALL_S and grown < MOST_GROWTH


def meet_some(meet: Callable[[Case], None], seed_number: int) -> None:
    """Make one batch of replies from this seed."""
    without_checks = settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    seed(seed_number)(without_checks(given(cases())(meet)))()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if fuzz(options.replies, options.seed, Path(folder)) else 1)


if __name__ == "__main__":
    main()
