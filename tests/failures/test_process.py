"""What happens when the process or its machine is in trouble: rows X8 to X15 of docs/failures.md."""

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
from vlmbatch.pipeline import processor

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
from vlmbatch.cli import ending
ending.GRACE_S = ending.REPORT_S = 0.5
"""


def wait_for(name: str, running: subprocess.Popen[str]) -> None:
    while not Path(name).exists():
        assert running.poll() is None
        time.sleep(0.01)


def test_x8_a_stuck_thread_does_not_hold_up_a_signal(photos: Photos, endpoint: Endpoint) -> None:
    """A decode that never ends is nothing in flight: the first signal ends the run at once."""
    photos(3, (100, 100))
    variables = breaking(Path("broken"), STUCK_DECODE)
    asked = arguments(endpoint, "--no-canary", "--max-size", "64")
    running = start(*asked, variables=variables, stderr=subprocess.PIPE)
    wait_for("stuck", running)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=25)  # less than --drain
    assert running.returncode == 130
    assert "Traceback" not in told


def test_x9_what_hangs_is_let_go_when_the_drain_is_over(photos: Photos, endpoint: Endpoint) -> None:
    """An endpoint that never answers cannot hold a run that is told to stop longer than --drain."""
    photos(5)
    endpoint.script = ["ok", *["hang"] * 9]
    running = start(*arguments(endpoint, "-c", "2", "--drain", "0.5"), stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 3)
    running.send_signal(signal.SIGHUP)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 129
    assert "stopped: 1 answered" in told
    endpoint.script = []
    finish(endpoint.url)
    each_once(5)


@pytest.mark.slow
def test_x10_a_stuck_disk_cannot_hold_the_exit(photos: Photos, endpoint: Endpoint) -> None:
    """Where even bringing the output to the disk hangs, the process ends some seconds after the drain."""
    photos(60)
    endpoint.delay = 0.1
    variables = breaking(Path("broken"), STUCK_DISK + IMPATIENT)
    asked = arguments(endpoint, "-c", "1", "--drain", "0.5")
    running = start(*asked, variables=variables, stderr=subprocess.DEVNULL)
    wait_for("stuck", running)
    running.terminate()
    assert running.wait(timeout=60) == 143
    written = len(records(Path("o.jsonl").read_text()))
    assert 0 < written < 60
    endpoint.delay = 0
    finish(endpoint.url)
    each_once(60)


def test_x10_a_stuck_thread_at_the_end_cannot_hold_the_exit(photos: Photos, endpoint: Endpoint) -> None:
    """A run that ends with an error does not wait for a decode that hangs."""
    photos(4)
    Image.new("RGB", (100, 100)).save("photos/a.png")
    endpoint.script = lambda request: "404-model" if Path("stuck").exists() else "slow:0.1"
    variables = breaking(Path("broken"), STUCK_DECODE)
    running = start(*arguments(endpoint, "--no-canary"), variables=variables, stderr=subprocess.PIPE)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 2, told
    assert Path("stuck").exists()


@pytest.mark.parametrize("shown", ["--log-json", "--verbose"])
def test_x15_a_reader_of_standard_error_that_stalls_holds_up_nothing(
    photos: Photos, endpoint: Endpoint, shown: str
) -> None:
    """A halted terminal or a pipe that nobody empties: all is written, and a signal would be heard."""
    folder = photos(100)
    for n in range(100):
        (folder / f"bad{n}.jpg").write_text("no image")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    running = start(*arguments(endpoint, shown, "-c", "8"), stderr=writing)
    os.close(writing)
    assert running.wait(timeout=120) == 3
    os.close(reading)
    assert len({r["id"] for r in records(Path("o.jsonl").read_text())}) == 200


def test_x10_a_start_that_hangs_can_be_ended(photos: Photos, endpoint: Endpoint) -> None:
    """Where even reading the prompt hangs, as on a dead disk, SIGTERM and the clock end the process."""
    photos(1)
    os.mkfifo("prompt")  # opening it waits for somebody to write
    hanging = arguments(endpoint, "--prompt-file", "prompt", "--drain", "0")
    timed = start(*hanging, "--max-duration", "1", stderr=subprocess.DEVNULL)
    told = start(*hanging, "-v", stderr=subprocess.DEVNULL)
    time.sleep(1)  # until signals are heard, which nothing shows
    told.terminate()
    assert timed.wait(timeout=60) == 6
    assert told.wait(timeout=60) in (143, -signal.SIGTERM)


@pytest.mark.slow
def test_x10_a_report_whose_disk_hangs_is_given_up(photos: Photos, endpoint: Endpoint) -> None:
    """The records are written, the process ends, and what cannot be told is no success."""
    photos(1)
    os.mkfifo("s")
    variables = breaking(Path("broken"), IMPATIENT)
    done = run(*arguments(endpoint, "--summary", "s"), **variables)
    assert done.returncode == 5
    assert "check its disk" in done.stderr
    each_once(1)


async def test_x12_there_is_no_task_for_each_image(photos: Photos, endpoint: Endpoint) -> None:
    """Over two thousand images there are never more tasks than places for images on their way."""
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
    """Of 40,000 records, 200 MB, the next run keeps less than a fifth in memory."""
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
    """Deadlines, waits and pauses do not look at the time of day, which may be set by a day at any moment."""
    photos(20)
    days = itertools.cycle((0, 86_400, -86_400))
    real = time.time

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(real() + next(days), tz)

    monkeypatch.setattr(time, "time", lambda: real() + next(days))
    monkeypatch.setattr(processor, "datetime", Jumping)
    endpoint.script = ["ok", "500", "503-busy", "rst", "429:1", "ok", "down:0.2"]
    done = await ran(backend="ollama", base_url=endpoint.url)
    assert done.error is None
    assert [r.failure for r in done.results if r.failure] == []
    assert len(done.ids) == len(set(done.ids)) == 20


@pytest.mark.parametrize("flag", ["--verbose", "--log-json"])
def test_x15_a_log_that_cannot_be_written_ends_no_run(photos: Photos, endpoint: Endpoint, flag: str) -> None:
    """The disk of the log is full: the records are written, and the exit code is that of the run."""
    photos(10)
    endpoint.script = ["ok", "500", "ok", "500"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments(endpoint, flag)], stderr=full, env=environment(), timeout=60, check=False
        )
    assert done.returncode == 0
    each_once(10)
