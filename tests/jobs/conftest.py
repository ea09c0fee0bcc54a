"""A Redis for each test of a module, empty at its start."""

from collections.abc import Iterator

import pytest
from redis_server import RedisServer

from vlmbatch.jobs.job_queue import JobQueue


@pytest.fixture(scope="module")
def redis_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests of a module."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def queue(redis_of_module: RedisServer) -> Iterator[JobQueue]:
    """An empty queue in a real Redis."""
    found = JobQueue.open(redis_of_module.url)
    found.connection.redis.flushall()
    yield found
    found.close()
