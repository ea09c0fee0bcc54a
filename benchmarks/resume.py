"""Claim: resuming a run with a million records takes seconds, and 65 bytes of memory for each.

Outputs of 1,000 to 1,000,000 answers are read back and all their images looked up, as in a resumed run.
vlmbatch does this, and for comparison a list of all records, each in a process of its own. Then the real
command resumes a run with the largest output, with a folder and with a list of its paths. Five new images
come last, after all finished ones. Linux only (/proc).

    python benchmarks/resume.py [--records 1000,10000,100000,1000000] [--rounds 3]
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import corpora
import endpoints
from measuring import Observed, observe, vlmbatch, workplace

from vlmbatch.config.run import OutputOptions
from vlmbatch.images import FileStamp, ImageFacts, ImageRef
from vlmbatch.records import Completion, Endpoint, Result, Usage, to_line
from vlmbatch.writers import JsonlWriter

NEW = 5
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


def write_output(path: Path, records: int, run: str = RUN) -> None:
    """Write an output with `records` answers."""
    endpoint = Endpoint(backend="vllm", url="http://127.0.0.1:8000/v1", model="qwen2.5vl")
    usage = Usage(input_tokens=612, output_tokens=28)
    with path.open("wb") as file:
        for number in range(records):
            result = Result(
                id=image(number),
                endpoint=endpoint,
                run=run,
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
        return sum(finished(ref, lambda _: STAMP) is True for ref in refs)


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


def make_tree(folder: Path, records: int) -> None:
    """Make the finished images of an output, in each folder links to its first file, and five new images."""
    for number in range(records):
        path = folder / image(number)
        first = path.with_name(Path(image(0)).name)  # ext4 has at most 65,000 links to a file
        if path != first:
            os.link(first, path)
            continue
        path.parent.mkdir(parents=True)
        with path.open("wb") as content:
            content.truncate(STAMP.bytes)
        os.utime(path, (STAMP.mtime, STAMP.mtime))
    corpora.many(folder / "z-new", NEW, (64, 48))


def whole_command(records: int, rounds: int) -> Iterator[tuple[str, Observed]]:
    """Yield the figures of a resumed run with a folder, and with a list, in each round."""
    with workplace() as folder, endpoints.slots(NEW, 0.05) as url, contextlib.chdir(folder):
        make_tree(folder, records)
        listed = [*map(image, range(records)), *(str(new) for new in sorted(Path("z-new").rglob("*.jpg")))]
        Path("list").write_text("\n".join(listed))
        options = {"backend": "ollama", "base_url": url, "concurrency": NEW}
        observe(vlmbatch("z-new", output="first.jsonl", **options))
        run = json.loads(Path("first.jsonl").read_text().splitlines()[0])["run"]
        write_output(Path("all.jsonl"), records, run)
        shutil.copy("first.jsonl.runs", "all.jsonl.runs")
        from_list = shlex.join(vlmbatch("-", output="all.jsonl", **options)) + " < list"
        ways = {
            "folder": vlmbatch("photos", "z-new", output="all.jsonl", **options),
            "list": ["sh", "-c", f"exec {from_list}"],
        }
        size = Path("all.jsonl").stat().st_size
        for _ in range(rounds):
            for way, command in ways.items():
                observed = observe(command, Path("all.jsonl"), longer_than=size)
                assert Path("all.jsonl").read_bytes()[size:].count(b"\n") == NEW, observed.told
                os.truncate("all.jsonl", size)
                yield way, observed


def print_whole_command(records: int, rounds: int) -> None:
    """Print the figures of the whole command."""
    ways: dict[str, list[Observed]] = {}
    for way, observed in whole_command(records, rounds):
        ways.setdefault(way, []).append(observed)
    print(
        "\n| resumed with | records | CPU s | s to the first new record | memory, MB |\n|---|---|---|---|---|"
    )
    for way, seen in ways.items():
        cpu = statistics.median(one.cpu_s for one in seen)
        first = statistics.median(one.first_record_s or one.wall_s for one in seen)
        peak_mb = statistics.median(one.peak_bytes for one in seen) / 1e6
        print(f"| {way} | {records:,} | {cpu:.2f} | {first:.2f} | {peak_mb:.1f} |", flush=True)


def main() -> None:
    """Print the tables; the ratios are to the list of records."""
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
    print_whole_command(max(map(int, given.records.split(","))), given.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
