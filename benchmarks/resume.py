"""Claim: reading a million records back takes seconds, and 45 bytes of memory for each.

Outputs of 1,000 to 1,000,000 answers are read back and all their images looked up, as in a run that goes on
with them, each in a process of its own: by vlmbatch, and by a list of all records, the obvious first
solution. Linux only (/proc).

    python benchmarks/resume.py [--records 1000,10000,100000,1000000] [--rounds 3]
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vlmbatch.config.run import OutputOptions
from vlmbatch.images import FileStamp, ImageFacts, ImageRef
from vlmbatch.records import Completion, Endpoint, Result, Usage, to_line
from vlmbatch.writers import JsonlWriter

RUN = "9f3c2a1b7d04"
STAMP = FileStamp(bytes=2311040, mtime=1763800000.1234567)
ANSWER = 'A grey cat sits on a wooden table beside a window.\n\nIt looks at the camera; the sign says "Café".'


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to read one output: CPU in seconds, and the growth of the process in bytes."""

    records: int
    size: int
    way: str
    cpu_s: float
    memory: int


def image(number: int) -> str:
    """The id of an image."""
    return f"photos/{number // 1000:04}/img_{number % 1000:04}.jpg"


def write_output(path: Path, records: int) -> None:
    """Write an output with `records` answers."""
    endpoint = Endpoint(backend="vllm", url="http://127.0.0.1:8000/v1", model="qwen2.5vl")
    usage = Usage(input_tokens=612, output_tokens=28)
    with path.open("wb") as file:
        for number in range(records):
            result = Result(
                id=image(number),
                endpoint=endpoint,
                run=RUN,
                started_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
                duration_s=2.31,
                attempts=1,
                completion=Completion(text=ANSWER, model="qwen2.5vl", finish_reason="stop", usage=usage),
                image=ImageFacts(
                    sha256=hashlib.sha256(str(number).encode()).hexdigest(),
                    bytes=STAMP.bytes,
                    mtime=STAMP.mtime,
                    width=4000,
                    height=3000,
                    sent_width=1024,
                    sent_height=768,
                    sent_bytes=143210,
                    frames=1,
                ),
            )
            file.write(to_line(result.to_record()))


async def by_vlmbatch(path: str, records: int) -> int:
    """The number of images that are done, by the index of a writer."""
    async with JsonlWriter(path, OutputOptions()) as writer:
        finished = await writer.begin(RUN, {})
        refs = (ImageRef(id=image(number), uri="") for number in range(records))
        return sum(finished(ref, lambda: STAMP) is True for ref in refs)


def by_list(path: str, records: int) -> int:
    """The number of images that are done, by a list of all records."""
    with open(path) as file:
        everything = [json.loads(line) for line in file]
    done = {record["id"] for record in everything if record["status"] == "ok"}
    return sum(image(number) in done for number in range(records))


def peak() -> int:
    """The peak memory of this process, in bytes. Linux only (/proc)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def measure(way: str, path: str, records: int) -> None:
    """Print CPU and memory of one way, and end without freeing a list of millions."""
    before, began = peak(), time.process_time()
    done = asyncio.run(by_vlmbatch(path, records)) if way == "vlmbatch" else by_list(path, records)
    spent = time.process_time() - began
    assert done == records, done
    print(json.dumps({"cpu_s": spent, "memory": peak() - before}), flush=True)
    os._exit(0)


def rows(sizes: list[int], rounds: int) -> Iterator[Row]:
    """Yield both ways at each size, one after the other in each round; medians over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        for records in sizes:
            write_output(path, records)
            ways: dict[str, list[dict[str, float]]] = {"a list of records": [], "vlmbatch": []}
            for _ in range(rounds):
                for way, measured in ways.items():
                    command = [sys.executable, __file__, "--measure", way, str(path), str(records)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    measured.append(json.loads(done.stdout))
            for way, measured in ways.items():
                yield Row(
                    records=records,
                    size=path.stat().st_size,
                    way=way,
                    cpu_s=statistics.median(one["cpu_s"] for one in measured),
                    memory=int(statistics.median(one["memory"] for one in measured)),
                )


def main() -> None:
    """Print the table; the ratios are to the list of records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", default="1000,10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(
        "| records | MB | read back as | CPU s | ratio | memory, MB | ratio |\n|---|---|---|---|---|---|---|"
    )
    base = None
    for row in rows([int(size) for size in given.records.split(",")], given.rounds):
        base = row if base is None or base.records != row.records else base
        slower, larger = row.cpu_s / base.cpu_s, row.memory / base.memory
        print(
            f"| {row.records:,} | {row.size / 1e6:.1f} | {row.way} "
            f"| {row.cpu_s:.3f} | {slower:.2f} | {row.memory / 1e6:.1f} | {larger:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
