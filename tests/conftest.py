"""Shared fixtures."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from endpoint import Endpoint
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from redis_server import RedisServer

    from vlmbatch.jobs.job_queue import JobQueue

pytest.register_assert_rewrite("failing")
settings.register_profile("untimed", deadline=None)  # a machine may be slow
settings.load_profile("untimed")
os.environ["XDG_CACHE_HOME"] = os.devnull  # no run in this process reads or changes files of the user


def pytest_configure() -> None:
    """Let SIGINT and SIGHUP end the processes that tests start: `&` and nohup make them ignore these signals.

    A process does not inherit a handler, so that pytest itself goes on after a SIGHUP.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: at any time some test waits for a process, a clock or an endpoint."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests have more time than others (pyproject.toml) before they are taken to hang."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(900))


def pytest_collection_finish() -> None:
    """Keep the half a million objects of the collected tests out of searches for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint with the models tiny-vision and tiny-text."""
    with Endpoint() as running:
        yield running


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the folder photos with N different JPEGs; its parent is the working folder of the test."""
    monkeypatch.chdir(tmp_path)

    def make(count: int, size: tuple[int, int] = (64, 48)) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        for n in range(count):
            colour = (n * 7 % 256, n * 31 % 256, n * 101 % 256)
            Image.new("RGB", size, colour).save(folder / f"p{n:04}.jpg", comment=str(n))
        return folder

    return make


@pytest.fixture
def all_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over several endpoints begins when the preflight of each has ended, however long that takes."""
    monkeypatch.setattr("vlmbatch.endpoints.preflight.STRAGGLERS_S", 240.0)


@pytest.fixture
def folder(photos: Callable[..., Path]) -> Path:
    """The folder photos with one good photo; its parent is the working folder of the test."""
    return photos(1)


@pytest.fixture(scope="module")
def redis_of_module(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RedisServer]":
    """One Redis for all tests of a module."""
    from redis_server import RedisServer

    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def queue(redis_of_module: "RedisServer") -> "Iterator[JobQueue]":
    """An empty queue in a real Redis."""
    from vlmbatch.jobs.job_queue import JobQueue

    found = JobQueue.open(redis_of_module.url)
    found.connection.redis.flushall()
    yield found
    found.close()
