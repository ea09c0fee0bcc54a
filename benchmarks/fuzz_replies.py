"""Claim: whatever a server replies costs one image, one hint or that endpoint, and never the run.

Hypothesis changes the recorded replies of real servers, and a server on loopback sends them to the real
backends, on every route. Each outcome must be an answer, whose record is strict JSON, or an error of ours.
The exit status is 1 if there was another exception, a stall of the event loop over two seconds, or a reply
that cost more than 300 MB.

    python benchmarks/fuzz_replies.py [--replies 10000] [--seed 1]
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import traceback
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fuzz_replies import Case, Fuzzing, cases

MOST_STALL_S = 2.0
MOST_GROWTH = 300_000_000


def peak() -> int:
    """The peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(replies: int, seed_number: int, folder: Path) -> bool:
    """Send the replies and print what came of them; returns whether the claim holds."""
    tracebacks, grown, slowest = 0, 0, (0.0, "")
    with asyncio.Runner() as runner:
        started = Fuzzing.started(folder / "prices.json")
        fuzzing = runner.run(started.__aenter__())

        @seed(seed_number)
        @settings(
            max_examples=replies,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def meet(case: Case) -> None:
            nonlocal tracebacks, grown, slowest
            fuzzing.longest_stall_s, before = 0.0, peak()
            try:
                runner.run(fuzzing.meet(case))
            except Exception:  # noqa: BLE001  # the benchmark counts them all
                tracebacks += 1
                traceback.print_exc()
                print(f"{case.work} of {case.kind}: {case.raw[:2000]!r}", file=sys.stderr)
            slowest = max(slowest, (fuzzing.longest_stall_s, f"{case.work}: {case.raw[:300]!r}"))
            grown = max(grown, peak() - before)

        meet()
        runner.run(started.__aexit__(None, None, None))
    for outcome, count in fuzzing.outcomes.most_common():
        print(f"{count:6} {outcome}")
    total = sum(fuzzing.outcomes.values()) + tracebacks
    print(f"{total:,} replies, {tracebacks} tracebacks, one reply cost {grown / 1e6:.0f} MB at most")
    print(f"the longest stall took {slowest[0]:.2f} s: {slowest[1]}")
    return tracebacks == 0 and slowest[0] < MOST_STALL_S and grown < MOST_GROWTH


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
