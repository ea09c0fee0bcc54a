"""Claim: a folder of a million files runs in the memory of a hundred, and its first result comes as early.

A run that goes on with an output stores about 65 bytes of each image in it.

For folders of 100 to 1,000,000 small JPEGs (hard links to forty files, which are made quickly), the real
command runs twice against slots_server.py, and the peak of its memory is measured:

- A first run, until 2,000 images have their records, most of them as duplicates. Then it is stopped.
  Meanwhile it has counted the whole folder. The seconds until its first record are measured from the start of
  the process.
- A run that goes on with an output in which all images but 2,000 are done. It reads the output back, walks
  the whole folder, skips the images that are done and sends the rest. The output is made from records of the
  first run.

    python benchmarks/flat_memory.py [--files 100,10000,1000000] [--slots 16]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import endpoints
from PIL import Image

ANSWERS = 2_000
SOURCES = 40
"""ext4 allows 65,000 hard links to a file."""
LATENCY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run over `files` files: its peak memory in bytes, seconds to its first record and to its end."""

    files: int
    run: str
    memory: int
    first_s: float
    whole_s: float
    cpu_s: float


def make_folder(place: Path, files: int) -> None:
    """Make a folder of JPEGs; the last ANSWERS of them, or half if they are few, are files of their own."""
    (place / "photos").mkdir()
    for number in range(SOURCES):
        Image.new("RGB", (64, 48), (number * 6, 90, 90)).save(place / f"{number}.jpg")
    for number in range(files - pending(files)):
        os.link(place / f"{number % SOURCES}.jpg", place / "photos" / f"{number:07}.jpg")
    for number in range(files - pending(files), files):
        Image.new("RGB", (64, 48)).save(place / "photos" / f"{number:07}.jpg", comment=str(number))


def pending(files: int) -> int:
    """The number of images that the second run has to send."""
    return min(ANSWERS, files // 2)


def lines_of(path: Path) -> int:
    """The number of lines of a file, in little memory: the peak of a child begins with its parent's."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def run(place: Path, url: str, output: str, until: int | None) -> tuple[int, float, float, float]:
    """Run once: peak memory, seconds to the first record, to the end and of CPU; stops at `until` records."""
    out = place / output
    before = out.stat().st_size if out.exists() else 0
    command = [sys.executable, "-m", "vlmbatch", "run", "photos", "-q", "-b", "vllm", "--base-url", url]
    began = time.monotonic()
    process = subprocess.Popen([*command, "-c", "16", "-o", output], cwd=place)
    first, done = 0.0, None
    while done is None:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        done = usage if pid else None
        if not first and out.exists() and out.stat().st_size > before:
            first = time.monotonic() - began
        if done is None and until and out.exists() and lines_of(out) >= until:
            process.send_signal(signal.SIGTERM)
            until = None
        time.sleep(0.01 if first else 0.002)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 143), process.returncode
    return done.ru_maxrss * 1024, first, time.monotonic() - began, done.ru_utime + done.ru_stime


def write_rest(place: Path, files: int) -> None:
    """Write an output in which all images but the last are done, from a record of the first run."""
    with (place / "first.jsonl").open() as file:
        record = json.loads(file.readline())
    stamps = [(place / f"{number}.jpg").stat() for number in range(SOURCES)]
    with (place / "second.jsonl").open("w") as file:
        for number in range(files - pending(files)):
            stamp = stamps[number % SOURCES]
            record["id"] = f"photos/{number:07}.jpg"
            record["image"] |= {"bytes": stamp.st_size, "mtime": stamp.st_mtime, "sha256": f"{number:064x}"}
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def rows(sizes: list[int], slots: int) -> Iterator[Row]:
    """Yield both runs at each size."""
    with endpoints.slots(slots, LATENCY_S) as url:
        for files in sizes:
            with tempfile.TemporaryDirectory() as name:
                place = Path(name)
                make_folder(place, files)
                memory, first, whole, cpu = run(place, url, "first.jsonl", min(ANSWERS, files))
                yield Row(files=files, run="first", memory=memory, first_s=first, whole_s=whole, cpu_s=cpu)
                write_rest(place, files)
                memory, first, whole, cpu = run(place, url, "second.jsonl", None)
                assert lines_of(place / "second.jsonl") == files
                yield Row(files=files, run="goes on", memory=memory, first_s=first, whole_s=whole, cpu_s=cpu)


def main() -> None:
    """Print the table; the ratio is to the same run over the fewest files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", default="100,10000,1000000")
    parser.add_argument("--slots", type=int, default=16)
    given = parser.parse_args()
    print("| files | run | peak memory, MB | ratio | first record after, s | CPU s | whole run, s |")
    print("|---|---|---|---|---|---|---|")
    least: dict[str, Row] = {}
    for row in rows([int(size) for size in given.files.split(",")], given.slots):
        base = least.setdefault(row.run, row)
        print(
            f"| {row.files:,} | {row.run} | {row.memory / 1e6:.1f} | {row.memory / base.memory:.2f} "
            f"| {row.first_s:.2f} | {row.cpu_s:.1f} | {row.whole_s:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
