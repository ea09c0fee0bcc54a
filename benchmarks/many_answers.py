"""Claim: the messages of a run take the same memory for a thousand answers and for a million.

The bar of a run, which draws nothing here, receives the events of 1,000 and of 1,000,000 answers, each number
in a process of its own. The comparison is a list of all results. Linux only (/proc).

    python benchmarks/many_answers.py [--rounds 1] [--quick]
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

from claim import Claim, Effort, Panel, Table, main, short
from measuring import environment

from vlmbatch.events import Event, ImageFinished, RunStarted
from vlmbatch.observers import Bar
from vlmbatch.records import Completion, Endpoint, Result, Usage

NUMBERS, QUICK_NUMBERS = (1_000, 1_000_000), (100, 1_000)
WAYS = ("vlmbatch", "a list of results")
MEASURED = """\
The bar of vlmbatch, which is off while answers appear as text, receives the results of the table's number of
images (benchmarks/many_answers.py). The other row
appends each result to a list. Growth of the process, each number in a process of its own."""


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    numbers = QUICK_NUMBERS if effort.quick else NUMBERS
    grown = {way: [_grown(way, number) for number in numbers] for way in WAYS}
    rows = tuple(
        (f"{number:,}", way, short(grown[way][at] / 1e6)) for at, number in enumerate(numbers) for way in WAYS
    )
    ours, other = (grown[way][-1] for way in WAYS)
    return [
        Claim(
            name="many-answers",
            title="Memory of many answers on a terminal",
            measured=MEASURED,
            rounds=1,
            ratio=(
                f"The messages of {numbers[-1]:,} answers take {short(ours / 1e6)} MB, the list "
                f"{short(other / 1e6)} MB."
            ),
            tables=(Table(head=("answers", "", "MB"), rows=rows),),
            panels=(
                Panel(
                    title="Growth of the process",
                    unit="MB",
                    places=tuple(f"{number:,}" for number in numbers),
                    series={way: tuple(max(each, 0) / 1e6 for each in grown[way]) for way in WAYS},
                ),
            ),
        )
    ]


def _grown(way: str, number: int) -> int:
    """How many bytes a process grows while it receives this many results."""
    command = [sys.executable, __file__, "--child", way, str(number)]
    done = subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(done.stdout))


def _receive(way: str, number: int) -> None:
    endpoint = Endpoint(backend="ollama", url="http://127.0.0.1:11434", model="qwen2.5vl")
    answer = Completion(text="A cat.", model="qwen2.5vl", finish_reason="stop", usage=Usage(output_tokens=9))
    result = Result(
        id="0.jpg",
        endpoint=endpoint,
        run="0" * 12,
        started_at=datetime.now(UTC),
        duration_s=1.0,
        completion=answer,
    )
    kept: list[Event] = []
    with open(os.devnull, "w", encoding="utf-8") as terminal:
        take = Bar(terminal) if way == WAYS[0] else kept.append
        take(RunStarted(endpoint=endpoint, run="0" * 12, concurrency=4, output="-"))
        before = _held()
        for at in range(number):
            take(ImageFinished(result=replace(result, id=f"{at}.jpg")))
        print(_held() - before)


def _held() -> int:
    """The memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _receive(sys.argv[2], int(sys.argv[3]))
    else:
        raise SystemExit(main(measure, rounds=1))
