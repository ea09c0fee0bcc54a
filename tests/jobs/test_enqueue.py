"""`vlmbatch enqueue`: each image gets one job, and the same call again adds only what is missing."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run, start
from filled_batches import collected, filled, finish, in_queue, of_queue
from redis_server import RedisServer
from waiting import until
from written_results import answered, failed, write

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, LockedError, QueueFullError
from vlmbatch.images import FileStamp
from vlmbatch.jobs.batches import Batches
from vlmbatch.jobs.claims import Claims
from vlmbatch.jobs.job_queue import JobQueue
from vlmbatch.jobs.store import Store
from vlmbatch.pipeline.fingerprint import answer_settings
from vlmbatch.records import Endpoint

pytestmark = pytest.mark.long
Photos = Callable[..., Path]
FOUND = Endpoint(backend="ollama", url="http://127.0.0.1:11434", model="llava:7b", digest="abc")


def settings(prompt: str = "Describe this image.") -> dict[str, Any]:
    """The settings of a run with the usual options at FOUND."""
    return answer_settings(RunConfig.of("photos"), FOUND, prompt)


def stamp(path: Path) -> FileStamp:
    """The stamp of this file."""
    status = path.stat()
    return FileStamp(status.st_size, status.st_mtime)


async def test_each_image_gets_one_job(photos: Photos, queue: JobQueue, redis_of_module: RedisServer) -> None:
    """Enqueuing twice adds each image once, with its id, its stamp, its content and its question."""
    folder = photos(3)
    config = of_queue(redis_of_module, prompt="Is there text?", system="Be brief", priority="low")
    first, again = await filled(config), await filled(config)
    assert (first.counts, again.counts) == ((3, 0), (0, 3))
    store = Store.open("store")
    claims = in_queue(queue)
    for claim, path in zip(claims, sorted(folder.iterdir()), strict=True):
        (image,) = claim.job.images
        assert claim.job.image_id == f"photos/{path.name}"
        assert (image.bytes, image.mtime) == stamp(path)
        assert store.read(image.key, max_bytes=10_000) == path.read_bytes()
        assert (claim.job.batch, claim.job.priority, claim.job.model) == ("default", "low", "")
    question = Claims(queue.connection, "w", ["q"], print).question(claims[0].job.question)
    assert question == {"prompt": "Is there text?", "system": "Be brief"}
    assert not Batches(queue).state("default").is_filling  # type: ignore[union-attr]


async def test_images_below_the_store_stay_in_place(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """An image below the folder of the store is not copied, and its key is its path there."""
    folder = photos(2)
    assert (await filled(of_queue(redis_of_module, store=str(folder.parent)))).counts == (2, 0)
    keys = [claim.job.images[0].key for claim in in_queue(queue)]
    assert keys == ["at/photos/p0000.jpg", "at/photos/p0001.jpg"]
    assert not (folder.parent / ".vlmbatch").exists()


async def test_a_changed_image_is_new(photos: Photos, queue: JobQueue, redis_of_module: RedisServer) -> None:
    """An image that has changed since the last time gets another job; the others do not."""
    folder = photos(2)
    config = of_queue(redis_of_module)
    await filled(config)
    os.utime(folder / "p0001.jpg", (1, 1))
    assert (await filled(config)).counts == (1, 1)


async def test_a_batch_that_is_begun_anew_reuses_no_answer(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """A duplicate names an image of the same collection: a batch begun anew has another scope for answers."""
    photos(1)
    config = of_queue(redis_of_module)
    scopes = []
    for _ in range(2):
        await filled(config)
        await filled(config)
        claims = in_queue(queue)
        scopes += [claim.job.scope for claim in claims]
        finish(queue, claims)
        await collected(of_queue(redis_of_module, output="o.jsonl", overwrite=True))
    assert len(scopes) == len(set(scopes)) == 2
    assert all(scope.startswith("batch:default:") for scope in scopes)


async def test_a_limit_counts_new_images(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """With --limit, each call adds the next images, as each run would ask about the next ones."""
    photos(5)
    config = of_queue(redis_of_module, limit=2)
    assert [(await filled(config)).all_counts.new for _ in range(4)] == [2, 2, 1, 0]
    assert len(in_queue(queue)) == 5


async def test_images_that_are_done_in_the_output_are_skipped(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """With -o, images are skipped that the newest run with the same question has done; the file stays."""
    folder = photos(4)
    done, broken, passing, _ = sorted(folder.iterdir())
    await write(
        Path("o.jsonl"),
        [
            answered("photos/p0000.jpg", stamp=stamp(done), run="r1"),
            failed("photos/p0001.jpg", stamp=stamp(broken), run="r1"),
            failed("photos/p0002.jpg", stamp=stamp(passing), run="r1", retryable=True),
        ],
        run="r1",
        settings=settings(),
    )
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path().glob("o.jsonl*")}
    tally = (await filled(of_queue(redis_of_module, output="o.jsonl"))).all_counts
    assert (tally.new, tally.skipped, tally.failed_before) == (2, 1, 1)
    again = await filled(of_queue(redis_of_module, output="o.jsonl", retry_failed=True))
    assert (again.counts, again.all_counts.skipped) == ((1, 2), 1)
    other = await filled(of_queue(redis_of_module, output="o.jsonl", batch="other", model="other"))
    assert other.counts == (4, 0)
    same = await filled(of_queue(redis_of_module, output="o.jsonl", batch="same", model="llava:7b"))
    assert same.counts == (2, 0)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path().glob("o.jsonl*")}
    assert after == before


async def test_a_batch_has_one_question(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """Another question is refused until the batch is collected; then the batch begins anew."""
    photos(1)
    await filled(of_queue(redis_of_module, batch="b"))
    for other in ({"prompt": "Other?"}, {"model": "m"}, {"max_size": "512"}):
        with pytest.raises(ConfigError, match="batch b has another question or model, and 1 of its images"):
            await filled(of_queue(redis_of_module, batch="b", **other))
    claims, batches = in_queue(queue), Batches(queue)
    Claims(queue.connection, "w", ["q"], print).finish([(claims[0], {"status": "ok"})])
    with pytest.raises(ConfigError, match="1 of its images"):
        await filled(of_queue(redis_of_module, batch="b", prompt="Other?"))
    batches.forget("b", [claims[0].job.id])
    assert (await filled(of_queue(redis_of_module, batch="b", prompt="Other?"))).counts == (1, 0)
    state = batches.state("b")
    assert state is not None
    assert (state.total, state.succeeded) == (1, 0)
    batches.begin("http", owner="alice")
    with pytest.raises(ConfigError, match="belongs to the service"):
        await filled(of_queue(redis_of_module, batch="http"))


async def test_what_cannot_be_read_is_reported(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """A file that is too large or gone gets no job, and its reason is reported; the others are added."""
    folder = photos(2)
    (folder / "large.jpg").write_bytes(b"x" * 5000)
    (folder / "lost.jpg").symlink_to("nothing")
    done = await filled(of_queue(redis_of_module, max_bytes=4000, store="."))
    assert done.counts == (2, 0)
    assert done.all_counts.unread == 2
    told = {problem.path: problem.message for problem in done.problems}
    assert told["photos/large.jpg"].startswith("too_large: the file has 5,000 bytes")
    assert told["photos/lost.jpg"].startswith("vanished: ")
    assert [claim.job.image_id for claim in in_queue(queue)] == ["photos/p0000.jpg", "photos/p0001.jpg"]


async def test_one_program_at_a_time_fills_a_batch(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """While a program fills a batch, another one is refused; other batches are free."""
    photos(1)
    batches = Batches(queue)
    batches.hold("default", "fill", "another")
    with pytest.raises(LockedError, match="another vlmbatch enqueue adds images to the batch default"):
        await filled(of_queue(redis_of_module))
    assert (await filled(of_queue(redis_of_module, batch="b"))).counts == (1, 0)
    batches.free("default", "fill", "another")
    assert (await filled(of_queue(redis_of_module))).counts == (1, 0)


async def test_a_full_redis_keeps_what_is_in_it(
    photos: Photos, queue: JobQueue, redis_of_module: RedisServer
) -> None:
    """If the memory of Redis is full, the call ends with an error, and the same call later adds the rest."""
    folder = photos(1)
    for n in range(2000):
        (folder / f"link{n:04}.jpg").symlink_to("p0000.jpg")
    redis = queue.connection.redis
    config = of_queue(redis_of_module, store=".")
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 500_000)
    try:
        with pytest.raises(QueueFullError, match="no job is lost"):
            await filled(config)
        state = Batches(queue).state("default")
        assert state is not None
        assert 0 < state.open < 2001
    finally:
        redis.config_set("maxmemory", 0)
    assert (await filled(config)).counts == (2001 - state.open, state.open)
    assert len(in_queue(queue, 5000)) == 2001


def test_a_signal_keeps_what_was_added(photos: Photos, queue: JobQueue, redis_of_module: RedisServer) -> None:
    """The paths of a list are added as they arrive; after Ctrl-C the same command adds the others at once."""
    photos(2)
    words = ("enqueue", "-", "--queue", redis_of_module.url, "--store", "store")
    paths = b"photos/p0000.jpg\nphotos/p0001.jpg\n"
    batches = Batches(queue)
    process = start(*words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("photos/p0000.jpg\n")
    process.stdin.flush()
    until(lambda: (state := batches.state("default")) is not None and state.open == 1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "1 image is in the queue (1 new, 0 added before); the same command adds the others" in told
    done = run(*words, stdin=paths)
    assert done.returncode == 0
    assert "2 images are in the queue (1 new, 1 added before)" in done.stderr
    assert f"vlmbatch worker --queue {redis_of_module.url} --store store" in done.stderr


def test_mistakes_have_plain_messages(photos: Photos, tmp_path: Path) -> None:
    """Each mistake ends the command with its exit code and a message that says what to type; no password."""
    photos(1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "thesis.txt").write_text("my thesis")
    with RedisServer(tmp_path, password="secret1") as redis:
        at = ("--queue", redis.url, "--store", "store")
        wrong = redis.url.replace("secret1", "secret2")
        cases: dict[tuple[str, ...], tuple[int, str]] = {
            ("photos",): (2, "add --queue redis://127.0.0.1:6379"),
            ("photos", "--queue", wrong): (2, "refuses the password"),
            ("photos", "--queue", "redis://127.0.0.1:1"): (4, "cannot be reached"),
            ("photos", "--queue", "http://h"): (2, "is not the URL of a Redis"),
            ("photos", *at, "--store", "photos/p0000.jpg"): (2, "--store"),
            ("photos", *at, "--batch", "a b"): (2, "--batch"),
            ("photos", *at, "--priority", "urgent"): (2, "high, normal or low"),
            ("photo", *at): (2, "did you mean photos?"),
            ("empty", *at): (2, "no image below empty"),
            ("photos", *at, "--schema", "{"): (2, "--schema"),
            ("photos", *at, "--retry-failed"): (2, "add --output FILE"),
            ("photos", *at, "-o", "thesis.txt"): (2, "left unchanged"),
        }
        for words, (code, told) in cases.items():
            done = run("enqueue", *words)
            assert (done.returncode, done.stdout) == (code, ""), (words, done.stderr)
            assert told in done.stderr, words
            assert "secret" not in done.stderr
            assert "Traceback" not in done.stderr
        done = run("enqueue", "photos", *at, "--log-json")
        assert done.returncode == 0
        assert "secret" not in done.stderr
        told = [json.loads(line)["message"] for line in done.stderr.splitlines()]
        assert told[0] == "1 image is in the queue (1 new, 0 added before)"
        assert run("enqueue", "photos", *at, "-q").stderr == ""
