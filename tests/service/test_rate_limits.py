"""Rate limits: how many requests are allowed, how long a client must wait, and what happens without Redis."""

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from waiting import until

from vlmbatch.errors import ConfigError, MissingDependencyError
from vlmbatch.service import rate_limits
from vlmbatch.service.rate_limits import REDIS_AWAY_S, RateLimits, Wait, address_bucket, key_bucket, limits_of


class Clock:
    """A clock that a test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Limited:
    """Rate limits, their clock and their messages."""

    def __init__(self, rate: str | None, storage_url: str | None = None) -> None:
        self.clock = Clock()
        self.told: list[str] = []
        self.limits = RateLimits(rate, storage_url, tell=self.told.append, clock=self.clock)

    async def allowed(self, count: int, bucket: str = "key:a", rate: str | None = None) -> list[bool]:
        """Whether each of these requests is allowed."""
        return [await self.limits.taken(bucket, rate) is None for _ in range(count)]


async def test_a_limit_holds_for_any_span_of_its_time() -> None:
    """A request is allowed again as soon as an earlier request is out of the window, and no earlier."""
    limited = Limited("3/minute")
    assert await limited.allowed(2) == [True, True]
    limited.clock.now += 50
    assert await limited.allowed(3) == [True, False, False]
    assert await limited.limits.taken("key:a", None) == Wait(seconds=10, limit="3/minute")
    limited.clock.now += 9.5
    assert await limited.limits.taken("key:a", None) == Wait(seconds=1, limit="3/minute")
    limited.clock.now += 0.5
    assert await limited.allowed(3) == [True, True, False]
    assert await limited.limits.taken("key:a", None) == Wait(seconds=50, limit="3/minute")


async def test_all_limits_hold_and_a_refused_request_counts_for_none() -> None:
    """With two limits, requests that one of them refuses use up nothing of the other."""
    limited = Limited("2/second;3/minute")
    assert await limited.allowed(20) == [True, True, *[False] * 18]
    assert await limited.limits.taken("key:a", None) == Wait(seconds=1, limit="2/second")
    limited.clock.now += 1
    assert await limited.allowed(3) == [True, False, False]
    assert await limited.limits.taken("key:a", None) == Wait(seconds=59, limit="3/minute")


async def test_a_bucket_may_have_a_limit_of_its_own() -> None:
    """The limit of a key takes the place of the usual limit; without either, everything is allowed."""
    limited = Limited("1/5minutes")
    assert await limited.allowed(3, rate="2 per hour") == [True, True, False]
    assert await limited.allowed(2) == [True, False]
    assert await limited.limits.taken("key:a", None) == Wait(seconds=300, limit="1/5minute")
    assert all(await Limited(None).allowed(100))


async def test_each_client_has_its_own_bucket() -> None:
    """A key and an address of the same text do not share a bucket; an IPv6 address counts with its /64."""
    limited = Limited("1/minute")
    buckets = [key_bucket("1.2.3.4"), address_bucket("1.2.3.4"), address_bucket("2001:db8:0:1::5")]
    for bucket in (*buckets, address_bucket("2001:db8:0:2::5")):
        assert await limited.allowed(2, bucket) == [True, False]
    assert await limited.allowed(1, address_bucket("::ffff:1.2.3.4")) == [False]
    assert await limited.allowed(1, address_bucket("2001:DB8:0:1:ffff::9")) == [False]
    assert address_bucket("fe80::1%eth0") == address_bucket("fe80::2")
    assert address_bucket("unix:") == address_bucket("1.2.3") == "address:other"


@pytest.mark.parametrize(
    "rate", ["", "60", "60/fortnight", "sixty/minute", "-1/minute", "0/minute", "1/20years", "10000000/day"]
)
def test_a_wrong_rate_is_named(rate: str) -> None:
    """A text that is no rate is an error with its place and an example."""
    with pytest.raises(ConfigError, match=r"^--rate .*write for example 60/minute"):
        Limited(rate)
    with pytest.raises(ConfigError, match=r"^keys\.toml: rate "):
        limits_of(rate, "keys.toml: rate")


async def test_old_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket is forgotten when its time is over, and when there are too many."""
    limited = Limited("1/second;2/minute")
    windows = limited.limits._memory
    for n in range(500):
        assert await limited.limits.taken(f"address:{n}", None) is None
    assert len(windows) == 1000
    limited.clock.now += 1
    await limited.allowed(1)
    assert len(windows) == 502
    limited.clock.now += 60
    await limited.allowed(1)
    assert len(windows) == 2
    monkeypatch.setattr(rate_limits, "MOST_BUCKETS", 10)
    for n in range(50):
        await limited.limits.taken(f"address:{n}", None)
    assert len(windows) == 20
    assert await limited.allowed(1, "address:49") == [False]


async def test_a_bucket_in_use_keeps_no_other_bucket() -> None:
    """Old buckets are forgotten also behind an older bucket that is still in use."""
    limited = Limited("5/second")
    for bucket in ("key:a", *(f"address:{n}" for n in range(10))):
        assert await limited.allowed(1, bucket) == [True]
    limited.clock.now += 0.6
    assert await limited.allowed(1, "key:a") == [True]
    limited.clock.now += 0.6
    assert await limited.allowed(5, "key:a") == [True] * 4 + [False]
    assert len(limited.limits._memory) == 1


@pytest.mark.parametrize("url", ["memcached://me:secret@h:1", "redis://me:secret@h:x", "redis://me:secret@h"])
def test_a_wrong_storage_is_named(url: str) -> None:
    """A URL that is not one of Redis is an error that hides its password."""
    with pytest.raises(ConfigError, match="write for example redis://") as caught:
        Limited("1/minute", url)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package redis, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "vlmbatch\[service\]" redis'):
        Limited("1/minute", "redis://127.0.0.1:6379")


async def test_without_redis_the_limits_hold_in_memory() -> None:
    """Requests are counted in memory while Redis does not answer, with one message; one of them tries it."""
    connections = 0

    def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    limited = Limited("2/minute", f"redis://me:secret@{place}")
    assert await limited.allowed(3) == [True, True, False]
    of_one_try = connections
    assert of_one_try > 0
    limited.clock.now += REDIS_AWAY_S
    assert await asyncio.gather(*(limited.allowed(1) for _ in range(10))) == [[False]] * 10
    assert connections == 2 * of_one_try
    (message,) = limited.told
    assert message.startswith(f"--rate-storage redis://{place} cannot count requests now (ConnectionError)")
    await limited.limits.aclose()
    server.close()


@contextmanager
def redis(folder: Path, port: int) -> Iterator[None]:
    """A Redis server at this port."""
    program = shutil.which("redis-server")
    assert program is not None, "install Redis, on Debian with: apt-get install redis-server"
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        until(lambda: answers(port))
        try:
            yield
        finally:
            process.kill()


def answers(port: int) -> bool:
    with closing(socket.socket()) as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
async def test_processes_share_the_limits_in_redis(tmp_path: Path) -> None:
    """Two services share the limits of a Redis server; they go on without it, and use it again."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    rate = "3/minute;5/hour"
    one, two = (Limited(rate, f"redis://127.0.0.1:{port}") for _ in range(2))
    with redis(tmp_path, port):
        assert await one.allowed(2) == [True, True]
        assert await two.allowed(3) == [True, False, False]
        assert await one.allowed(1) == [False]
        wait = await one.limits.taken("key:a", None)
        assert wait is not None
        assert (0 < wait.seconds <= 60, wait.limit) == (True, "3/minute")
        assert await two.allowed(1, "key:b", "1/minute") == [True]
    assert one.told == two.told == []
    for each in (one, two):
        assert await each.allowed(4) == [True, True, True, False]
        assert len(each.told) == 1
    with redis(tmp_path, port):
        assert await one.allowed(1) == [False]
        for each in (one, two):
            each.clock.now += REDIS_AWAY_S
        assert await one.allowed(2) == [True, True]
        assert await two.allowed(2) == [True, False]
        assert (
            one.told[1:] == two.told[1:] == [f"--rate-storage redis://127.0.0.1:{port} counts requests again"]
        )
        for each in (one, two):
            await each.limits.aclose()
