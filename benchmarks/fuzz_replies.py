"""Claim: whatever a server replies costs one image, one hint or that endpoint, and never the run.

Hypothesis changes the recorded replies of real servers, and a server in another process sends them to the
real backends, on every route. Each outcome must be an answer, whose record is strict JSON, or an error of
ours. The exit status is 1 if there was another exception, a stall of the event loop over two seconds, or
memory that grew by more than 300 MB.

    python benchmarks/fuzz_replies.py [--replies 10000] [--seed 1]
"""

import argparse
import asyncio
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fuzz_replies import Case, Fuzzing, Server, cases

MOST_STALL_S = 2.0
MOST_GROWTH = 300_000_000
BATCH = 100
"""Replies of one seed; Hypothesis keeps them in memory."""


def peak() -> int:
    """The peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Replies:
    """The process with the server; it makes the replies, too, so that only backends use memory here."""

    def __init__(self, first_seed: int) -> None:
        command = [sys.executable, __file__, "--serve", "--seed", str(first_seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line()

    def next(self) -> tuple[str, str, str]:
        """Make the server use another reply; returns the backend's kind, its work, and the reply's start."""
        assert self._process.stdin is not None
        self._process.stdin.write("next\n")
        self._process.stdin.flush()
        kind, work, start = json.loads(self._line())
        return kind, work, start

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def serve(first_seed: int) -> None:
    """Run as the process of Replies: change the reply with each line of standard input."""
    server, made = Server(), _cases(first_seed)
    async with server.started() as url:
        print(url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            server.case = case = await asyncio.to_thread(next, made)
            print(json.dumps([case.kind, case.work, repr(case.raw[:2000])]), flush=True)


def _cases(first_seed: int) -> Iterator[Case]:
    for number in itertools.count(first_seed):
        yield from _batch(number)


def _batch(seed_number: int) -> list[Case]:
    batch: list[Case] = []

    def keep(case: Case) -> None:
        batch.append(case)

    without_checks = settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    seed(seed_number)(without_checks(given(cases())(keep)))()
    return batch


async def fuzz(replies: int, first_seed: int, folder: Path) -> bool:
    """Let the backends receive the replies, and print the outcomes; returns whether the claim holds."""
    tracebacks, worst_s, worst, before = 0, 0.0, "", 0
    source = Replies(first_seed)
    async with Fuzzing.started(source.url, folder / "prices.json") as fuzzing:
        for number in range(replies):
            kind, work, start = source.next()
            fuzzing.longest_stall_s = 0.0
            try:
                await fuzzing.meet(kind, work)
            except Exception:  # noqa: BLE001  # the benchmark counts them all
                tracebacks += 1
                traceback.print_exc()
                print(f"{work} of {kind}: {start}", file=sys.stderr)
            if fuzzing.longest_stall_s > worst_s:
                worst_s, worst = fuzzing.longest_stall_s, f"{work} of {kind}: {start[:300]}"
            before = before or (peak() if number == BATCH else 0)
            if number % 1000 == 999:
                print(f"{number + 1:,} replies, {tracebacks} tracebacks, {worst_s:.2f} s", file=sys.stderr)
    source.close()
    grown = peak() - before
    for outcome, count in fuzzing.outcomes.most_common():
        print(f"{count:6} {outcome}")
    print(f"{replies:,} replies, {tracebacks} tracebacks; the memory grew by {grown / 1e6:.0f} MB")
    print(f"the longest stall took {worst_s:.2f} s: {worst}")
    return tracebacks == 0 and worst_s < MOST_STALL_S and grown < MOST_GROWTH


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.seed))
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if asyncio.run(fuzz(options.replies, options.seed, Path(folder))) else 1)


if __name__ == "__main__":
    main()
