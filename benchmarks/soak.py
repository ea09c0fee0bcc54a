"""Claim: whatever happens to endpoint and run, every image ends with exactly one record, and it is an answer.

A run sends thousands of small images. The endpoint, a process of its own, answers one request in twelve with
a passing fault. It is killed and restarted every few seconds, and now and then stays down for half a minute.
The run, the real command, is killed with SIGKILL at random and restarted, with `--concurrency auto` and 16 in
turn. After `--seconds` of that both are left alone until the run ends by itself. The exit status is 1 if an
image is missing, has two records, or has a failure.

    python benchmarks/soak.py [--images 10000] [--seconds 480] [--away 30] [--seed 1] [--wire ollama]

The short form that CI runs: --images 600 --seconds 25 --away 4.
"""

import argparse
import itertools
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

TESTS = Path(__file__).parent.parent / "tests"
FAULTY = 1 / 12
ANSWER_S = 0.1
"""Seconds of a good answer; the endpoint works on eight requests at once."""
ALONE_S = 900.0
"""Seconds that the run may take after the last disturbance."""
FAULTS = {
    "500": 3, "empty500": 2, "html502": 2, "html504": 1, "503-busy": 3, "503-empty": 2, "503-loading": 1,
    "429:1": 2, "429-ms:200": 2, "408": 1, "409": 1, "425": 1, "499": 1, "html200": 1, "broken_json": 2,
    "shortbody": 3, "rst": 4, "closenoresp": 3, "idleclose": 3, "error_in_200": 2, "empty": 1,
    "ndjson_error_midstream": 1, "ndjson_no_done": 1, "slow:1": 3, "hang": 0.3, "trickle": 0.3,
}  # fmt: skip
"""Passing modes of tests/endpoint/server.py, with their weights among the faults."""


@dataclass
class Counts:
    """The disturbances of endpoint and run."""

    endpoint_kills: int = 0
    long_absences: int = 0
    run_kills: int = 0
    exits: Counter[int] = field(default_factory=Counter)


def serve(port: int, seed: int, log: str) -> None:
    """Serve as the endpoint; write each fault to the log, which outlives this process."""
    sys.path.insert(0, str(TESTS))
    from endpoint import Endpoint, Received

    moments = random.Random(seed)
    names, weights = list(FAULTS), list(FAULTS.values())

    with Path(log).open("a") as faults:

        def script(_request: Received) -> str:
            fault = moments.choices(names, weights)[0] if moments.random() < FAULTY else "ok"
            faults.write(f"{fault}\n")
            faults.flush()
            return fault

        with Endpoint(port=port, script=script, slots=8) as endpoint:
            endpoint.delay = ANSWER_S
            signal.pause()


class Life:
    """A process that is killed when its time is over, and restarted after a while."""

    def __init__(self, errors: Path, *commands: list[str]) -> None:
        """`commands` are started in turn."""
        self.commands = itertools.cycle(commands)
        self.errors = errors
        self.process: subprocess.Popen[bytes] | None = None
        self.until = 0.0
        self.most_kb = 0

    def start(self, life_s: float) -> None:
        """Start the process; it may live for `life_s` seconds."""
        command = next(self.commands)
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=errors, stderr=errors)
        self.until = time.monotonic() + life_s

    def kill(self, away_s: float) -> None:
        """Kill the process; it stays down for `away_s` seconds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.until = time.monotonic() + away_s

    def look(self) -> None:
        """Update the peak memory of the process; Linux only."""
        if self.process is None:
            return
        with suppress(OSError):  # it ended just now
            held = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
            self.most_kb = max(self.most_kb, int(held[1]) if held else 0)

    @property
    def due(self) -> bool:
        """Whether the time of its life, or of its absence, is over."""
        return time.monotonic() >= self.until

    @property
    def ended(self) -> int | None:
        """Its exit code if it has ended by itself."""
        return None if self.process is None else self.process.poll()


def disturb(endpoint: Life, run: Life, options: argparse.Namespace, chance: random.Random) -> Counts:
    """Kill and restart both for `--seconds`, then let the run end, with 0 or 3."""
    counts = Counts()
    quiet = time.monotonic() + options.seconds
    while True:
        now = time.monotonic()
        if now > quiet + ALONE_S:
            run.kill(0)
            raise SystemExit(f"the run has not ended {ALONE_S:.0f} s after the last disturbance")
        if endpoint.due and now < quiet and endpoint.process is not None:
            long = chance.random() < 0.1
            endpoint.kill(options.away if long else chance.uniform(0.1, 1.5))
            counts.endpoint_kills += 1
            counts.long_absences += long
        elif endpoint.process is None and endpoint.due:
            endpoint.start(chance.uniform(2, 8))
        if (code := run.ended) is not None:
            counts.exits[code] += 1
            if code in (0, 3):
                return counts
            run.start(chance.uniform(2, 20))
        elif run.due and now < quiet:
            run.kill(0)
            counts.run_kills += 1
            run.start(chance.uniform(2, 20))
        run.look()
        time.sleep(0.02)


@contextmanager
def stage(options: argparse.Namespace) -> Iterator[tuple[Path, Life, Life]]:
    """Make a folder of images, an endpoint and a run over the folder."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        for n in range(options.images):
            place = folder / "photos" / f"{n % 97:02}"
            place.mkdir(parents=True, exist_ok=True)
            colour = (n * 7 % 256, n * 31 % 256, n // 256 % 256)
            Image.new("RGB", (48, 40), colour).save(place / f"{n:06}.jpg", comment=str(n))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        serving = f"--serve {port} --seed {options.seed} --log {folder}/faults"
        asking = f"run {folder}/photos -o {folder}/o.jsonl --timeout 5 -b {options.wire} --base-url {url}"
        endpoint = Life(folder / "endpoint.log", [sys.executable, __file__, *serving.split()])
        command = [sys.executable, "-m", "vlmbatch", *asking.split(), "-m", "tiny-vision", "--concurrency"]
        run = Life(folder / "run.log", *([*command, number] for number in ("16", "auto")))
        try:
            yield folder, endpoint, run
        finally:
            endpoint.kill(0)
            run.kill(0)


def judge(folder: Path, options: argparse.Namespace) -> tuple[dict[str, int], list[str]]:
    """The figures of the output, and its errors."""
    records = [json.loads(line) for line in (folder / "o.jsonl").read_bytes().splitlines()]
    ids = Counter(record["id"] for record in records)
    expected = {str(path) for path in (folder / "photos").rglob("*.jpg")}
    failed = [record for record in records if record["status"] != "ok"]
    figures = {
        "images": options.images,
        "records": len(records),
        "images without a record": len(expected - set(ids)),
        "images with two records": sum(count > 1 for count in ids.values()),
        "failures recorded": len(failed),
        "attempts of the unluckiest image": max(record["attempts"] for record in records),
    }
    wrong = [f"{name}: {figures[name]}" for name in list(figures)[2:5] if figures[name]]
    wrong += [f"failed: {record['id']}: {record['error']}" for record in failed[:5]]
    return figures, wrong


def main() -> int:
    """Soak, then print the figures and the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--away", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wire", choices=("ollama", "vllm"), default="ollama")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--log", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.seed + int(time.time()), options.log)
        return 0
    with stage(options) as (folder, endpoint, run):
        began = time.monotonic()
        endpoint.start(5)
        run.start(10)
        counts = disturb(endpoint, run, options, random.Random(options.seed))
        took = time.monotonic() - began
        figures, wrong = judge(folder, options)
        faults = Counter((folder / "faults").read_text().splitlines())
    asked = faults.total()
    figures |= {
        "requests with an image": asked,
        "of them with a fault": asked - faults["ok"],
        "kinds of fault": len(faults) - 1,
        "endpoint killed": counts.endpoint_kills,
        f"of that down for {options.away:g} s": counts.long_absences,
        "run killed": counts.run_kills,
        "run ended with 4 and started again": counts.exits[4],
        "seconds": round(took),
        "MB of memory of a run at most": run.most_kb // 1024,
    }
    for name, value in figures.items():
        print(f"{name:34}{value:8}")
    others = {code: n for code, n in counts.exits.items() if code not in (0, 4)}
    wrong += [f"the run ended {n} times with exit code {code}" for code, n in others.items()]
    print("\n".join(wrong) or "every image has exactly one record, and it is an answer")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
