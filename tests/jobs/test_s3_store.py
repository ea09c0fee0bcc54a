"""The store in S3, over a server of moto. It needs s3fs and moto."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from vlmbatch.errors import ConfigError, ImageError, StoreAwayError
from vlmbatch.jobs.store import Store

pytestmark = pytest.mark.long

DAY = "2026-12-01"
COPY = f"jobs/{DAY}/a1/0"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server with the bucket `pictures`; clients find it over the usual variables."""
    s3fs = pytest.importorskip("s3fs", reason='install s3fs with: pip install "s3fs>=2025.3"')
    moto = pytest.importorskip("moto.server", reason='install moto with: pip install "moto[server]>=5"')
    running = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": host,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("pictures")
    try:
        yield running
    finally:
        running.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_in_s3(server: object) -> None:
    """In S3, a store does all that it does in a folder; no bucket is made, and an away server is noticed."""
    at_once = threading.Barrier(4)

    def start(_: int) -> str:
        at_once.wait()
        return Store.open("s3://pictures/queue").identity

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(start, range(4)))
    store = Store.open("s3://pictures/queue")
    assert found == [store.identity] * 4
    assert Store.open("s3://pictures/other").identity != store.identity

    store.put(COPY, b"12345")
    store.put(f"jobs/{DAY}/a1/1", b"")
    assert store.put_file("files/file-1", io.BytesIO(b"x" * 12_000_000)) == 12_000_000
    assert store.read(COPY, max_bytes=5) == b"12345"
    assert store.read(f"jobs/{DAY}/a1/1", max_bytes=5) == b""
    with pytest.raises(ImageError) as caught:
        store.read(COPY, max_bytes=4)
    assert caught.value.kind == "too_large"
    with store.open_read("files/file-1") as file:
        assert sum(len(part) for part in iter(lambda: file.read(1_000_000), b"")) == 12_000_000
    assert [store.size(key) for key in (COPY, "files/file-1", "files/none")] == [5, 12_000_000, None]
    assert store.days() == [DAY]
    assert sorted(store.jobs_of(DAY)) == [("a1", COPY), ("a1", f"jobs/{DAY}/a1/1")]
    for key in (COPY, COPY, f"jobs/{DAY}/a1/1"):
        store.delete(key)
    store.delete_day_if_empty(DAY)
    assert store.days() == []
    with pytest.raises(ImageError, match="no longer in the store of the queue"):
        store.read(COPY, max_bytes=5)

    with pytest.raises(ConfigError, match="s3://nobucket/x cannot be written: make its bucket"):
        Store.open("s3://nobucket/x")
    with pytest.raises(ConfigError, match="there is no store at s3://nobucket/x"):
        Store.open("s3://nobucket/x", create=False)
    server.stop()  # type: ignore[attr-defined]  # moto has no types
    for call in (store.check, lambda: store.read(COPY, max_bytes=5), lambda: store.put(COPY, b"x")):
        with pytest.raises(StoreAwayError, match="the store at s3://pictures/queue cannot be used: "):
            call()
