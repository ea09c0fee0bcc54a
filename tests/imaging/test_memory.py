"""The memory budget for decoding: its size, its order, and the memory of a run with large pictures."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from command import measured, records
from endpoint import Endpoint
from PIL import Image
from waiting import until

from vlmbatch.errors import ImageError
from vlmbatch.imaging import memory as memory_module
from vlmbatch.imaging.memory import DecodeMemory
from vlmbatch.machine import memory_limit

Photos = Callable[..., Path]
GIB = 1024**3


def machine(root: Path, cgroup: str, **limits: str) -> Path:
    """A file system with /proc/self/cgroup and limits of control groups; __ stands for a slash."""
    for name, content in {"proc__self__cgroup": cgroup, **limits}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_container_of_version_2_says_its_limit(tmp_path: Path) -> None:
    """The least limit of the control group and its parents counts; "max" means no limit."""
    root = machine(
        tmp_path,
        "0::/a/b\n",
        **{
            "sys__fs__cgroup__a__memory.max": "200000000\n",
            "sys__fs__cgroup__a__b__memory.max": "max\n",
            "sys__fs__cgroup__a__b__memory.high": "300000000\n",
        },
    )
    assert memory_limit(root) == 200_000_000


def test_a_container_of_version_1_says_its_limit(tmp_path: Path) -> None:
    """In version 1 only the tree of the memory controller counts, and other controllers do not."""
    root = machine(
        tmp_path,
        "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
        **{
            "sys__fs__cgroup__memory__docker__abc__memory.limit_in_bytes": "100000000",
            "sys__fs__cgroup__memory__x__memory.limit_in_bytes": "5",
        },
    )
    assert memory_limit(root) == 100_000_000


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    """Without readable control groups, the limit is the machine's memory."""
    assert memory_limit(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_limit_of_the_process_counts() -> None:
    """Under `ulimit -v` the budget is a quarter of the memory that Python itself leaves."""
    code = "from vlmbatch.imaging.memory import DecodeMemory; print(DecodeMemory.of(None).budget)"
    command = ["prlimit", f"--as={GIB}", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.15 * GIB < int(done.stdout) < 0.25 * GIB


@pytest.mark.parametrize(("machine", "budget"), [(GIB, GIB // 4), (8 * GIB, 2 * GIB), (64 * GIB, 2 * GIB)])
def test_the_budget_suits_the_machine(monkeypatch: pytest.MonkeyPatch, machine: int, budget: int) -> None:
    """The budget is a quarter of the machine's memory, at most 2 GiB, or the value of the option."""
    monkeypatch.setattr(memory_module, "memory_limit", lambda: machine)
    assert DecodeMemory.of(None).budget == budget
    assert DecodeMemory.of(12_345).budget == 12_345


def test_threads_never_hold_more_than_the_budget() -> None:
    """Many threads with different weights together stay within the budget, and all get their memory."""
    memory = DecodeMemory(100, machine=10_000)
    held, most, done, lock = 0, 0, 0, threading.Lock()

    def work(weight: int) -> None:
        nonlocal held, most, done
        for _ in range(50):
            with memory.room(weight):
                with lock:
                    held += min(weight, 100)
                    most = max(most, held)
                with lock:
                    held -= min(weight, 100)
                    done += 1

    threads = [threading.Thread(target=work, args=(weight,)) for weight in (10, 30, 60, 90, 100, 5000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    assert done == 300
    assert most <= 100


def test_a_heavy_request_does_not_starve() -> None:
    """A thread that waits for much memory gets it before a later thread that wants little."""
    memory = DecodeMemory(100, machine=10_000)
    order = list[str]()

    def want(name: str, weight: int | None) -> threading.Thread:
        def work() -> None:
            with memory.room(weight):
                order.append(name)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: len(memory._queue) > len(waiting))
        return thread

    waiting = list[threading.Thread]()
    with memory.room(60):
        waiting.append(want("heavy", None))
        waiting.append(want("light", 10))
        assert order == []
    for thread in waiting:
        thread.join(timeout=240)
    assert order == ["heavy", "light"]


def test_an_image_that_exceeds_the_machine_is_refused() -> None:
    """An image that needs more than four fifths of all memory fails, and the message has both numbers."""
    memory = DecodeMemory(GIB, machine=2 * GIB)
    told = r"takes 1\.9 GB of memory, and this machine has 2\.1 GB"
    with pytest.raises(ImageError, match=told) as refused, memory.room(1_900_000_000):
        pass
    assert refused.value.kind == "too_large"
    with memory.room(1_600_000_000):  # alone, but possible
        pass


@pytest.mark.slow
def test_x11_large_pictures_are_decoded_one_after_the_other(photos: Photos, endpoint: Endpoint) -> None:
    """With a budget for one WebP of 25 megapixels (0.4 GB), a run with ten of them never holds two."""
    folder = photos(0)
    Image.new("RGB", (5000, 5000), "teal").save(folder / "0.webp", lossless=True, method=0)
    for n in range(1, 10):
        (folder / f"{n}.webp").write_bytes((folder / "0.webp").read_bytes())
    asked = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "--decode-memory", "420MB")
    done, peak = measured(*asked)
    assert done.returncode == 0
    assert [r["status"] for r in records(done.stdout)] == ["ok"] * 10
    assert peak < 700_000_000


def test_files_have_a_budget_of_their_own() -> None:
    """A task that holds a file and waits for decoding memory does not block the tasks that decode."""
    memory = DecodeMemory(100, machine=10_000)
    files = memory.part(0.25)
    assert files.budget == 25
    with memory.room(None), files.room(1000):
        assert (memory._free, files._free) == (0, 0)
    assert (memory._free, files._free) == (100, 25)
