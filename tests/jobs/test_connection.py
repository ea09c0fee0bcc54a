"""What a user learns about a Redis that cannot be used."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
import trustme
from command import breaking, run
from jobs_of import claims_of, job, names, record
from redis_server import RedisServer
from serving import picture

from vlmbatch.errors import ConfigError, QueueAwayError, QueueFullError
from vlmbatch.jobs.connection import FORMAT_KEY, Connection
from vlmbatch.jobs.job_queue import JobQueue


def free_port() -> int:
    """A port at which no server listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port: int = taken.getsockname()[1]
    return port


def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    """The message has the host and what to do, never the password."""
    port = free_port()
    with pytest.raises(QueueAwayError) as raised:
        JobQueue.open(f"redis://me:hunter2@127.0.0.1:{port}/3")
    assert str(raised.value) == (
        f"the Redis at redis://127.0.0.1:{port}/3 cannot be reached (Connection refused); start it, or "
        "correct --queue"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1:port",
        "redis://:hunter2@[::1",
        "redis://127.0.0.1/?socket_timeout=x&password=hunter2",
        "redis://127.0.0.1/?password=hunter2&no_such_option=1",
        "redis://:hunter2/x@127.0.0.1",
        "redis://:hunter2#x@127.0.0.1",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    """A URL that no Redis can have gives a ConfigError with an example."""
    with pytest.raises(ConfigError, match=r"write for example redis://127\.0\.0\.1:6379") as raised:
        Connection(url)
    assert "hunter2" not in str(raised.value)


@pytest.mark.long
def test_a_wrong_password_has_a_message_of_its_own(tmp_path: Path) -> None:
    """No password, a wrong one and the right one."""
    with RedisServer(tmp_path, password="right") as server:
        for secret in ("", ":hunter2@", "other:hunter2@"):
            with pytest.raises(ConfigError) as raised:
                JobQueue.open(server.url.replace(":right@", secret))
            place = f"redis://127.0.0.1:{server.port}"
            assert str(raised.value) == (
                f"the Redis at {place} refuses the password; set VLMBATCH_QUEUE to redis://:PASSWORD@HOST:6379"
            )
        JobQueue.open(server.url).close()


@pytest.mark.long
def test_a_full_redis_loses_no_job(tmp_path: Path) -> None:
    """New jobs and claims are refused as a whole, and jobs in work get their results."""
    with RedisServer(tmp_path, "--maxmemory-policy", "noeviction") as server:
        queue = JobQueue.open(server.url)
        queue.add([job("a"), job("c"), job("d")])
        claims = claims_of(queue)
        held = claims.claim(2)
        queue.connection.redis.config_set("maxmemory", 1)
        told = f"the memory of the Redis at redis://127.0.0.1:{server.port} is full; raise its maxmemory"
        with pytest.raises(QueueFullError, match=told):
            queue.add([job("b")])
        with pytest.raises(QueueFullError, match=told):
            claims.claim(1)
        assert claims.finish([(held[0], record("a"))]) == [True]
        claims.release(held[1:])
        queue.connection.redis.config_set("maxmemory", 0)
        assert queue.find(job("b").id) is None
        assert queue.add([job("b")]) == 1
        assert names(claims.claim(5)) == ["c", "d", "b"]
        queue.close()


@pytest.mark.long
def test_a_redis_of_another_format_or_without_rights_is_refused(tmp_path: Path) -> None:
    """The format of another version, a user without rights, and a replica each have a message."""
    with RedisServer(tmp_path) as server:
        queue = JobQueue.open(server.url)
        redis = queue.connection.redis
        redis.set(FORMAT_KEY, "99")
        with pytest.raises(ConfigError, match="another version of vlmbatch uses the queue"):
            JobQueue.open(server.url)
        redis.set(FORMAT_KEY, "1")
        redis.acl_setuser("guest", enabled=True, passwords=["+pw"], categories=["+@all"], keys=["other:*"])
        with pytest.raises(ConfigError, match="does not let this user use the queue; allow"):
            JobQueue.open(server.url.replace("redis://", "redis://guest:pw@"))
        redis.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(ConfigError, match="is a read-only replica; name the primary"):
            queue.keep_question("d", {})
        queue.close()


@pytest.mark.long
@pytest.mark.parametrize("missing", ["redis", "rq"])
@pytest.mark.parametrize(
    "words", [("collect",), ("enqueue", "."), ("worker", "--base-url", "http://127.0.0.1:1")]
)
def test_a_missing_package_has_a_message(words: tuple[str, ...], missing: str, tmp_path: Path) -> None:
    """Without the extra packages, each command of the queue says what to install."""
    broken = breaking(tmp_path / "broken", f"import sys\nsys.modules[{missing!r}] = None\n")
    (tmp_path / "a.jpg").write_bytes(picture())
    named = [str(tmp_path) if word == "." else word for word in words]
    done = run(*named, "--queue", "redis://127.0.0.1:1", **broken)
    told = "the job queue needs packages that are not installed; type: pip install 'vlmbatch[queue]'"
    assert (done.returncode, done.stderr) == (2, f"vlmbatch: {told}\n")


@pytest.mark.long
def test_a_redis_with_tls_needs_a_trusted_certificate(tmp_path: Path) -> None:
    """With the certificate of the authority the queue works, and without it the message says what to add."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with RedisServer(tmp_path, password="right").with_tls(tmp_path) as server:
        queue = JobQueue.open(server.url)
        assert queue.add([job("a")]) == 1
        queue.close()
        place = f"rediss://127.0.0.1:{server.port}"
        with pytest.raises(ConfigError) as raised:
            JobQueue.open(server.url.partition("?")[0])
        assert str(raised.value) == (
            f"the certificate of the Redis at {place} is not trusted; add ?ssl_ca_certs=FILE to the URL, "
            "with the PEM file of the authority that signed it"
        )
