"""Checks random answers against random JSON Schemas, and prints the longest stall of the event loop.

Each answer is read as in a run: in a thread, while an event loop counts how long it could do nothing. An
answer is data or a bad answer; any other exception ends the program with its traceback, the schema and the
answer. The exit status is also 1 after a stall of two seconds, or if the memory grew by more than 300 MB.

    python benchmarks/fuzz_answers.py [--answers 10000] [--seed 1]
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from schema_pairs import ANSWERS, DEEP, SCHEMAS, SLOW

from vlmbatch.errors import BadAnswerError, ConfigError
from vlmbatch.prompts.checking import CHECKER
from vlmbatch.prompts.schemas import AnswerSchema, schema_text
from vlmbatch.records import Completion

MOST_STALL_S = 2.0
MOST_GROWTH_KB = 300_000
BEAT_S = 0.005
HOSTILE_EVERY = 500
"""One answer of this many is one of the hostile pairs, each of which takes a second of processor time."""

BATCH = 200
"""Hypothesis remembers all examples of one test in memory."""


class Fuzzer:
    """Reads answers and counts what became of them."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest_check = 0.0
        self.longest_stall = 0.0
        self._hostile = [*SLOW.values(), DEEP]

    async def watch(self) -> None:
        """Measure how late the event loop comes back to a sleep."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self.longest_stall = max(self.longest_stall, time.monotonic() - began - BEAT_S)

    def read(self, schema: dict[str, Any], answer: str) -> None:
        """Read one answer; every now and then a hostile one instead."""
        number = self.outcomes.total()
        if number % HOSTILE_EVERY == 0:
            schema, answer = self._hostile[number // HOSTILE_EVERY % len(self._hostile)]
        began = time.monotonic()
        self.outcomes[_outcome(schema, answer)] += 1
        self.longest_check = max(self.longest_check, time.monotonic() - began)


def _outcome(schema: dict[str, Any], answer: str) -> str:
    try:
        text = schema_text(json.dumps(schema))
        assert text is not None
        done = AnswerSchema(text).read(Completion(text=answer, model="m", finish_reason="stop"))
    except ConfigError:
        return "the schema is refused"
    except BadAnswerError as error:
        words = ("takes too", "is not JSON", "more than one", "does not match")
        return next((word for word in words if word in str(error)), "another reason")
    json.dumps(done.data, allow_nan=False)
    return "data"


def _read_batch(fuzzer: Fuzzer, start: int) -> None:
    @seed(start)
    @settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema=SCHEMAS, answer=ANSWERS)
    def one(schema: dict[str, Any], answer: str) -> None:
        fuzzer.read(schema, answer)

    one()


async def fuzz(answers: int, start: int) -> Fuzzer:
    """Read at least this many random answers."""
    fuzzer = Fuzzer()
    watching = asyncio.create_task(fuzzer.watch())
    loop = asyncio.get_running_loop()
    while fuzzer.outcomes.total() < answers:
        await loop.run_in_executor(CHECKER.thread, _read_batch, fuzzer, start + fuzzer.outcomes.total())
    watching.cancel()
    return fuzzer


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzzer = asyncio.run(fuzz(options.answers, options.seed))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for outcome, count in fuzzer.outcomes.most_common():
        print(f"{count:7} {outcome}")
    print(f"longest check {fuzzer.longest_check:.2f} s, longest stall {fuzzer.longest_stall * 1000:.0f} ms")
    print(f"peak memory grew by {grown / 1024:.0f} MB")
    sys.exit(0 if fuzzer.longest_stall < MOST_STALL_S and grown < MOST_GROWTH_KB else 1)


if __name__ == "__main__":
    main()
