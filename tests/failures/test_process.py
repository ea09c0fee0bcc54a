"""Failures of the process and its machine: rows X8 to X15 of docs/failures.md."""

import asyncio
import fcntl
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import pytest
from command import COMMAND, breaking, environment, measured, records, run, start
from endpoint import Endpoint
from failures.test_output import arguments, each_once
from inside import finish
from PIL import Image
from running import briefly, ran

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.pipeline import step_log

Photos = Callable[..., Path]

STUCK_DECODE = """
import time
from PIL import ImageFile
real = ImageFile.ImageFile.load_prepare
def load_prepare(self):
    if self.size == (100, 100):
        open("stuck", "w").close()
        time.sleep(600)
    real(self)
ImageFile.ImageFile.load_prepare = load_prepare
"""
STUCK_DISK = """
import os, time
def fsync(fd):
    if os.stat("o.jsonl").st_size:
        open("stuck", "w").close()
        time.sleep(600)
os.fsync = fsync
"""
IMPATIENT = """
from vlmbatch.cli import signals
signals.GRACE_S = signals.REPORT_S = 0.5
"""


def wait_for(name: str, running: subprocess.Popen[str]) -> None:
    while not Path(name).exists():
        assert running.poll() is None
        time.sleep(0.01)


def test_x8_a_stuck_thread_does_not_delay_a_signal(photos: Photos, endpoint: Endpoint) -> None:
    """The first signal ends a run with a stuck decode at once, since no request is in flight."""
    photos(3, (100, 100))
    variables = breaking(Path("broken"), STUCK_DECODE)
    asked = arguments(endpoint, "--no-canary", "--max-size", "64", "--drain", "3600")
    running = start(*asked, variables=variables, stderr=subprocess.PIPE)
    wait_for("stuck", running)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=240)  # less than --drain
    assert running.returncode == 130
    assert "Traceback" not in told


def test_x9_hanging_requests_are_abandoned_after_the_drain(photos: Photos, endpoint: Endpoint) -> None:
    """A stopped run waits only --drain for requests that hang, and the next run does the rest."""
    photos(5)
    endpoint.script = ["ok", *["hang"] * 9]
    running = start(*arguments(endpoint, "-c", "2", "--drain", "0.5"), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 3)
    running.send_signal(signal.SIGHUP)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 129
    assert "stopped: 1 answered" in told
    endpoint.script = []
    finish(endpoint.url)
    each_once(5)


@pytest.mark.slow
def test_x10_a_stuck_disk_does_not_prevent_the_exit(photos: Photos, endpoint: Endpoint) -> None:
    """If fsync of the output hangs, the process still ends after the drain; the next run does the rest."""
    photos(60)
    endpoint.delay = 0.2  # the output is synced every few seconds
    endpoint.script = lambda request: "ok" if (request.chat or 0) < 50 else "held"
    variables = breaking(Path("broken"), STUCK_DISK + IMPATIENT)
    asked = arguments(endpoint, "-c", "1", "--drain", "0.5")
    running = start(*asked, variables=variables, stderr=subprocess.DEVNULL)
    wait_for("stuck", running)
    running.terminate()
    assert running.wait(timeout=240) == 143
    written = len(records(Path("o.jsonl").read_text()))
    assert 0 < written < 60
    endpoint.delay, endpoint.script = 0, ()
    finish(endpoint.url)
    each_once(60)


def test_x10_a_stuck_thread_does_not_prevent_the_exit(photos: Photos, endpoint: Endpoint) -> None:
    """A run that ends with an error does not wait for a hanging decode."""
    photos(4)
    Image.new("RGB", (100, 100)).save("photos/a.png")
    endpoint.script = lambda request: "404-model" if Path("stuck").exists() else "slow:0.1"
    variables = breaking(Path("broken"), STUCK_DECODE)
    running = start(*arguments(endpoint, "--no-canary"), variables=variables, stderr=subprocess.PIPE)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 2, told
    assert Path("stuck").exists()


@pytest.mark.parametrize("shown", ["--log-json", "--verbose"])
def test_x15_a_stalled_reader_of_standard_error_delays_nothing(
    photos: Photos, endpoint: Endpoint, shown: str
) -> None:
    """If the reader of standard error stalls, as a halted terminal does, the run writes all records."""
    folder = photos(100)
    for n in range(100):
        (folder / f"bad{n}.jpg").write_text("no image")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    running = start(*arguments(endpoint, shown, "-c", "8"), stderr=writing)
    os.close(writing)
    assert running.wait(timeout=240) == 3
    os.close(reading)
    assert len({r["id"] for r in records(Path("o.jsonl").read_text())}) == 200


def test_x10_a_hanging_start_can_be_ended(photos: Photos, endpoint: Endpoint) -> None:
    """If the read of the prompt hangs, as on a dead disk, SIGTERM and --max-duration end the process."""
    photos(1)
    os.mkfifo("prompt")  # open() waits for a writer
    hanging = arguments(endpoint, "--prompt-file", "prompt", "--drain", "0")
    timed = start(*hanging, "--max-duration", "1", stderr=subprocess.DEVNULL)
    told = start(*hanging, "-v", stderr=subprocess.DEVNULL)
    time.sleep(1)  # until signals are handled, which no output shows
    told.terminate()
    assert timed.wait(timeout=240) == 6
    assert told.wait(timeout=240) in (143, -signal.SIGTERM)


@pytest.mark.slow
def test_x10_a_hanging_report_is_abandoned(photos: Photos, endpoint: Endpoint) -> None:
    """If the write of a report hangs, the records are complete and the exit code is 5."""
    photos(1)
    os.mkfifo("s")
    variables = breaking(Path("broken"), IMPATIENT)
    done = run(*arguments(endpoint, "--summary", "s"), **variables)
    assert done.returncode == 5
    assert "check its disk" in done.stderr
    each_once(1)


async def test_x12_tasks_are_bounded(photos: Photos, endpoint: Endpoint) -> None:
    """A run over two thousand images has never 40 or more tasks at once."""
    photos(2)
    most = 0

    def count_tasks(event: object) -> None:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))

    config = RunConfig.of("photos", backend="ollama", base_url=endpoint.url, concurrency=4)
    folder = Path("photos")
    for n in range(2, 2000):
        os.link(folder / "p0001.jpg", folder / f"p{n:04}.jpg")
    batch = Batch(config, [count_tasks], sleep=briefly)
    assert len([result async for result in batch]) == 2000
    assert most < 40


@pytest.mark.slow
def test_x13_reading_back_a_long_output_takes_little_memory(photos: Photos, endpoint: Endpoint) -> None:
    """The next run over 40,000 records, 200 MB, holds less than a fifth of them in memory."""
    photos(2)
    finish(endpoint.url)
    first, second = Path("o.jsonl").read_text().splitlines()
    with Path("o.jsonl").open("w") as output:
        for n in range(40_000):
            line = first.replace('"response":"', '"response":"' + "x" * 5000)
            output.write(line.replace("photos/p0000.jpg", f"photos/gone{n}.jpg") + "\n")
        output.write(first + "\n")
        output.write(second + "\n")
    size = Path("o.jsonl").stat().st_size
    assert size > 200_000_000
    done, peak = measured(*arguments(endpoint))
    assert done.returncode == 0
    assert "2 done before" in done.stderr
    assert peak < 60_000_000 + size / 5


async def test_x14_a_clock_that_jumps_changes_nothing(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the time of day keeps jumping by a day, retries and pauses work, and all images are answered."""
    photos(20)
    days = itertools.cycle((0, 86_400, -86_400))
    real = time.time

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(real() + next(days), tz)

    monkeypatch.setattr(time, "time", lambda: real() + next(days))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    monkeypatch.setattr(step_log, "datetime", Jumping)
    endpoint.script = ["ok", "500", "503-busy", "rst", "429:1", "ok", "down:0.2"]
    done = await ran(backend="ollama", base_url=endpoint.url)
    assert done.error is None
    assert [r.failure for r in done.results if r.failure] == []
    assert len(done.ids) == len(set(done.ids)) == 20


@pytest.mark.parametrize("flag", ["--verbose", "--log-json"])
def test_x15_a_log_on_a_full_disk_does_not_end_the_run(photos: Photos, endpoint: Endpoint, flag: str) -> None:
    """If the log cannot be written to a full disk, all records are written and the exit code is 0."""
    photos(10)
    endpoint.script = ["ok", "500", "ok", "500"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments(endpoint, flag)], stderr=full, env=environment(), timeout=240, check=False
        )
    assert done.returncode == 0
    each_once(10)
