"""Jobs over HTTP: sent with /analyze/async, and looked at, waited for and cancelled with /job/{id}."""

import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import run
from endpoint import Endpoint
from redis import Redis
from redis_server import RedisServer
from serving import KEY, Served, errors_of, in_base64, picture
from stub_worker import StubWorker
from waiting import until
from written_results import failed

from vlmbatch.config.job_queue import QueueOptions
from vlmbatch.jobs.job import ImageJob, JobImage
from vlmbatch.jobs.opening import Jobs
from vlmbatch.service.problems import Problem
from vlmbatch.service.queue_client import QueueClient

OTHER_KEY = "another-key-of-a-client"
KEYS = (f"alice:{KEY}", f"bob:{OTHER_KEY}")
ALICE, BOB = ({"Authorization": f"Bearer {key}"} for key in (KEY, OTHER_KEY))
NOT_FOUND = "this job does not exist, its result has expired, or it belongs to another API key"


def send(
    served: Served, data: bytes | None = None, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    """The reply to a job with a picture."""
    coded = in_base64(picture() if data is None else data)
    return served.client.post("/analyze/async", json={"image_base64": coded, **fields}, headers=headers)


def sent(served: Served, *args: Any, **fields: Any) -> str:
    """The id of a new job."""
    reply = send(served, *args, **fields)
    assert reply.status_code == 202, reply.text
    job_id: str = reply.json()["job_id"]
    return job_id


def status(served: Served, job_id: str) -> str:
    """The status of a job of a service without keys."""
    found: str = served.client.get(f"/job/{job_id}").raise_for_status().json()["status"]
    return found


@contextmanager
def queue(
    endpoint: Endpoint, folder: Path, *redis_options: str, persistent: bool = False, **options: Any
) -> Iterator[tuple[Served, StubWorker, RedisServer]]:
    """A service with a queue, a worker, and the Redis of both."""
    store = folder / "store"
    with (
        RedisServer(folder, *redis_options, persistent=persistent) as redis,
        Served(endpoint, queue=redis.url, store=str(store), **options) as served,
        closing(StubWorker(redis.url, store)) as worker,
    ):
        yield served, worker, redis


def images(folder: Path) -> list[Path]:
    """The images in the store."""
    return [path for path in (folder / "store" / ".vlmbatch" / "jobs").rglob("*") if path.is_file()]


def test_without_a_queue_the_client_learns_what_is_missing(endpoint: Endpoint) -> None:
    """Without --queue each of the routes has the status 503, and says how to start one; metrics have none."""
    with Served(endpoint) as served:
        replies = [
            send(served),
            served.client.get("/job/a"),
            served.client.delete("/job/a"),
        ]
        assert {errors_of(reply)[:2] for reply in replies} == {(503, "no_queue")}
        assert all("--queue redis://" in errors_of(reply)[2] for reply in replies)
        assert not replies[0].json()["error"]["retryable"]
        assert "queue" not in served.client.get("/ready").json()
        assert not any(name.startswith("vlm_queue_") for name in served.metrics())


def test_the_routes_are_described(endpoint: Endpoint) -> None:
    """/openapi.json has both routes with their statuses, headers and parameters, also without a queue."""
    with Served(endpoint) as served:
        document = served.client.get("/openapi.json").json()
        wrong = served.client.post("/job/a")
    send_one = document["paths"]["/analyze/async"]["post"]
    assert {"200", "202", "422", "503"} <= send_one["responses"].keys()
    assert "Location" in send_one["responses"]["202"]["headers"]
    assert set(send_one["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    names = [each["name"] for each in send_one["parameters"]]
    assert {"Idempotency-Key", "priority"} <= set(names)
    routes = document["paths"]["/job/{id}"]
    assert routes.keys() == {"get", "delete"}
    assert [each["name"] for each in routes["get"]["parameters"]] == ["id", "wait", "X-Request-ID"]
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "DELETE, GET")


def test_the_place_of_an_absent_queue_is_for_the_operator(endpoint: Endpoint, tmp_path: Path) -> None:
    """While Redis is away, the service answers, and says so; with keys only its log names Redis."""
    url = "redis://:geheim@127.0.0.1:1"
    options = {"queue": url, "store": str(tmp_path / "store")}
    with Served(endpoint, **options) as served:
        reply = send(served)
        assert errors_of(reply)[:2] == (503, "queue_away")
        assert "127.0.0.1:1 cannot be reached" in errors_of(reply)[2]
        assert "start it" in errors_of(reply)[2]
        assert reply.headers["Retry-After"] == "10"
        assert reply.json()["error"]["retryable"]
        until(lambda: served.client.get("/ready").status_code == 200)
        until(lambda: "cannot be reached" in served.client.get("/ready").json()["queue"])
        until(lambda: served.metrics().get("vlm_queue_up") == 0)
        assert "vlm_queue_workers" not in served.metrics()
        assert served.upload().status_code == 200
        log = "\n".join(served.log)
    with Served(endpoint, service_key=KEYS, **options) as served:
        reply = send(served, headers=ALICE)
        assert errors_of(reply)[:2] == (503, "queue_away")
        assert "ask the operator" in errors_of(reply)[2]
        until(lambda: "queue" in served.client.get("/ready").json())
        assert "127.0.0.1:1" not in reply.text + served.client.get("/ready").text
        log += served.logged("127.0.0.1:1 cannot be reached")
    assert "geheim" not in log


@pytest.mark.long
def test_a_job_goes_from_its_request_to_its_result(endpoint: Endpoint, tmp_path: Path) -> None:
    """A worker gets the image and the question with the options of the service, and the client the record."""
    with queue(endpoint, tmp_path, prompt="from the service", max_size=256, result_ttl=50) as each:
        served, worker, redis = each
        reply = send(served, picture(1), priority="low")
        job_id = reply.json()["job_id"]
        assert (reply.status_code, reply.json()["status"]) == (202, "pending")
        assert reply.headers["Location"] == f"/job/{job_id}"
        form = {"prompt": "what?", "priority": "high", "model": "tiny-vision", "max_tokens": "7"}
        files = {"file": ("a/photo.jpg", picture(2))}
        first = served.client.post("/analyze/async", files=files, data=form).json()["job_id"]
        pending = served.client.get(f"/job/{job_id}").json()
        assert pending.pop("request_id")
        assert pending == {"job_id": job_id, "status": "pending", "result": None, "error": None}

        claims = worker.claim(2)
        assert [claim.job.id for claim in claims] == [first, job_id]
        assert [worker.image(claim) for claim in claims] == [picture(2), picture(1)]
        assert worker.question(claims[0]) == {"prompt": "what?", "max_size": 256, "max_tokens": 7}
        assert worker.question(claims[1]) == {"prompt": "from the service", "max_size": 256}
        assert [(each.job.model, each.job.priority, each.job.image_id) for each in claims] == [
            ("tiny-vision", "high", "photo.jpg"),
            ("", "low", reply.json()["request_id"]),
        ]
        assert status(served, job_id) == "started"
        worker.finish(claims[0])
        worker.finish(claims[1], failed("x"))
        done = served.client.get(f"/job/{first}").json()
        assert (done["status"], done["result"], done["response"]) == ("complete", *["A grey cat."] * 2)
        assert (done["error"], done["id"], done["v"]) == (None, "photo.jpg", 1)
        wrong = served.client.get(f"/job/{job_id}")
        assert (wrong.status_code, wrong.json()["status"], wrong.json()["result"]) == (200, "failed", None)
        assert (wrong.json()["error"]["kind"], wrong.json()["job_id"]) == ("bad_image", job_id)
        with closing(Redis.from_url(redis.url)) as client:
            assert 0 < client.ttl(f"rq:results:{first}") <= 50
        line = served.logged(f"GET /job/{first} 200")
        assert "answer_chars=11" in line
        until(lambda: served.metrics().get('vlm_queue_jobs{state="finished"}') == 2)
        sent(served)
        until(lambda: served.metrics()['vlm_queue_jobs{state="queued"}'] == 1)
        found = served.metrics()
        assert (found["vlm_queue_up"], found["vlm_queue_workers"]) == (1, 0)
        assert found["vlm_queue_oldest_seconds"] >= 0
        assert found['vlm_image_size_bytes_count{route="/analyze/async"}'] == 3
        assert found['vlm_requests_total{kind="",route="/job/{id}",status="200"}'] >= 3
        assert served.client.get("/ready").json()["queue"] == "up"
    assert endpoint.questions == []


@pytest.mark.long
def test_a_request_that_comes_twice_is_one_job(endpoint: Endpoint, tmp_path: Path) -> None:
    """With one Idempotency-Key there is one job with its first image, also if requests come at once."""
    with queue(endpoint, tmp_path) as (served, worker, _):
        headers = {"Idempotency-Key": "order 7"}
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda n: send(served, picture(n), headers), range(8)))
        assert {reply.status_code for reply in replies} == {202}
        (job_id,) = {reply.json()["job_id"] for reply in replies}
        assert len(images(tmp_path)) == 1
        (claim,) = worker.claim(9)
        assert (claim.job.id, worker.image(claim)) == (job_id, images(tmp_path)[0].read_bytes())
        assert send(served, picture(9), headers, prompt="else").json()["status"] == "started"
        worker.finish(claim)
        again = send(served, picture(9), headers)
        assert (again.status_code, again.json()["status"]) == (200, "complete")
        assert again.json()["job_id"] == job_id
        assert worker.claim(9) == []
        assert len(images(tmp_path)) == 1
        assert sent(served, picture(9), {"Idempotency-Key": "order 8"}) != job_id
        served.client.delete(f"/job/{job_id}").raise_for_status()
        assert sent(served, picture(9), headers) == job_id


@pytest.mark.long
def test_wrong_requests_make_no_job(endpoint: Endpoint, tmp_path: Path) -> None:
    """A wrong field, image, model, header or id is refused at once, as by the other routes."""
    with queue(endpoint, tmp_path, max_tokens=9) as (served, worker, _):
        schema = {"type": "object", "properties": 5}
        for reply, expected in (
            (send(served, schema=schema), (422, "bad_option")),
            (send(served, b"text"), (415, "not_an_image")),
            (send(served, model="none"), (404, "not_found")),
            (send(served, priority="urgent"), (422, "bad_option")),
            (send(served, headers={"Idempotency-Key": "é".encode()}), (422, "bad_option")),  # type: ignore[dict-item]
            (send(served, headers={"Idempotency-Key": "x" * 256}), (422, "bad_option")),
            (served.client.get("/job/a?wait=61"), (422, "bad_option")),
            (served.client.get("/job/a%0Ab"), (404, "not_found")),
        ):
            assert errors_of(reply)[:2] == expected
        assert worker.claim(9) == []
        assert images(tmp_path) == []
        good = {"type": "object", "properties": {"animal": {"type": "string"}}}
        sent(served, schema=good)
        (claim,) = worker.claim(9)
        question = worker.question(claim)
        assert (question["max_tokens"], '"animal"' in question["schema"]) == (9, True)
        worker.jobs.queue.add([replace(claim.job, id=name) for name in ("x" * 64, "x" * 65)])
        assert served.client.get(f"/job/{'x' * 64}").status_code == 200
        assert served.client.get(f"/job/{'x' * 65}").status_code == 404


@pytest.mark.long
def test_jobs_belong_to_their_api_key(endpoint: Endpoint, tmp_path: Path) -> None:
    """Another key, a batch of the same name and a name of its own: each job is seen by its own key alone."""
    keys = tmp_path / "keys.toml"
    hashes = (hashlib.sha256(key.encode()).hexdigest() for key in (KEY, OTHER_KEY))
    entries = zip(("alice", "bob"), hashes, ('models = ["tiny-vision"]', ""), strict=True)
    keys.write_text(
        "".join(f'[keys.{name}]\nsha256 = "{digest}"\n{more}\n' for name, digest, more in entries)
    )
    with queue(endpoint, tmp_path, keys_file=str(keys)) as (served, worker, _):
        name = {"Idempotency-Key": "1"}
        job_id = sent(served, picture(1), ALICE | name)
        assert sent(served, picture(2), BOB | name) != job_id
        for method in ("GET", "DELETE"):
            reply = served.client.request(method, f"/job/{job_id}", headers=BOB)
            assert errors_of(reply) == (404, "not_found", NOT_FOUND)
            assert errors_of(served.client.request(method, "/job/unknown", headers=BOB))[2] == NOT_FOUND
        batch_job = ImageJob(
            id="in-a-batch",
            image_id="a.jpg",
            images=(JobImage(key="at/a.jpg"),),
            question="q",
            keep_s=60,
            scope="alice",
            batch="alice",
        )
        worker.jobs.queue.add([batch_job])
        assert served.client.get("/job/in-a-batch", headers=ALICE).status_code == 404
        claimed = {(claim.job.scope, claim.job.model) for claim in worker.claim(2)}
        assert claimed == {("alice", "tiny-vision"), ("bob", "")}  # alice may use no other model
        assert served.client.get(f"/job/{job_id}").status_code == 401
        assert served.client.get(f"/job/{job_id}", headers=ALICE).json()["status"] == "started"


@pytest.mark.long
def test_a_job_can_be_cancelled_and_removed(endpoint: Endpoint, tmp_path: Path) -> None:
    """No worker gets a cancelled job, a worker that has it cannot finish it, and an ended job is removed."""
    with queue(endpoint, tmp_path) as (served, worker, _):
        name = {"Idempotency-Key": "1"}
        waiting, in_work, done = (sent(served, picture(n), None if n else name) for n in range(3))

        def delete(job_id: str) -> tuple[int, str]:
            reply = served.client.delete(f"/job/{job_id}")
            return reply.status_code, reply.json().get("status")

        assert delete(waiting) == (200, "cancelled")
        first, second = worker.claim(9)
        assert [first.job.id, second.job.id] == [in_work, done]
        assert delete(in_work) == (200, "cancelled")
        assert not worker.finish(first)
        assert status(served, in_work) == status(served, waiting) == "cancelled"
        assert served.client.get(f"/job/{waiting}").json()["error"] is None
        assert delete(waiting) == (200, "cancelled")
        again = send(served, picture(0), name)
        assert (again.status_code, again.json()["job_id"], again.json()["status"]) == (
            200,
            waiting,
            "cancelled",
        )
        assert len(images(tmp_path)) == 1
        worker.finish(second)
        assert delete(done) == (200, "complete")
        assert images(tmp_path) == []
        assert delete(done)[0] == 404
        assert served.client.get(f"/job/{done}").status_code == 404
        assert worker.jobs.queue.counts() == {"queued": 0, "started": 0, "finished": 0, "failed": 0}


@pytest.mark.long
def test_a_client_can_wait_for_the_end(endpoint: Endpoint, tmp_path: Path) -> None:
    """With `wait` the reply comes with the result; it comes without one when the time or the service ends."""
    with queue(endpoint, tmp_path) as (served, worker, _):
        job_id, other = sent(served, picture(1)), sent(served, picture(2))
        (claim,) = worker.claim()
        assert served.client.get(f"/job/{other}?wait=0.1").json()["status"] == "pending"
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(served.client.get, f"/job/{job_id}?wait=60")
            until(lambda: served.service.admission.in_work == 1)
            worker.finish(claim)
            assert waiting.result().json()["status"] == "complete"
            waiting = pool.submit(served.client.get, f"/job/{other}?wait=60")
            until(lambda: served.service.admission.in_work == 1)
            served.stop()
            assert waiting.result().json()["status"] == "pending"


@pytest.mark.long
def test_jobs_survive_a_crash_of_redis(endpoint: Endpoint, tmp_path: Path) -> None:
    """While Redis is away, jobs get 503 and other requests an answer; after it, the jobs are there."""
    with queue(endpoint, tmp_path, persistent=True) as (served, worker, redis):
        job_id = sent(served)
        redis.kill()
        for reply in (send(served), served.client.get(f"/job/{job_id}?wait=60")):
            assert errors_of(reply)[:2] == (503, "queue_away")
        assert served.upload().status_code == 200
        until(lambda: served.metrics()["vlm_queue_up"] == 0)
        redis.start()
        until(lambda: served.client.get(f"/job/{job_id}").status_code == 200)
        until(lambda: served.metrics()["vlm_queue_up"] == 1)
        (claim,) = worker.claim(9)
        worker.finish(claim)
        assert status(served, job_id) == "complete"


@pytest.mark.long
async def test_a_machine_without_memory_is_overloaded(tmp_path: Path) -> None:
    """If the work on the queue finds no memory or descriptors, the client learns that it can try again."""
    with RedisServer(tmp_path) as redis:
        options = QueueOptions(queue=redis.url, store=str(tmp_path / "store"))
        queue = QueueClient(options, hides_reasons=False, tell=lambda told: None)

        def fail(_jobs: Jobs) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with pytest.raises(Problem) as caught:
            await queue.call(fail)
        await queue.aclose()
    assert (caught.value.kind, caught.value.retryable) == ("overloaded", True)


@pytest.mark.long
def test_a_redis_that_hangs_holds_up_nothing_else(endpoint: Endpoint, tmp_path: Path) -> None:
    """While Redis does not answer, /ready and /metrics say so, and images are answered."""
    with queue(endpoint, tmp_path) as (served, _, redis):
        redis.pause()
        until(lambda: served.client.get("/ready").json()["queue"] == "the job queue does not answer")
        assert served.client.get("/ready").status_code == 200
        assert served.metrics()["vlm_queue_up"] == 0
        assert served.upload().status_code == 200
        redis.resume()
        until(lambda: served.client.get("/ready").json()["queue"] == "up")


@pytest.mark.long
def test_a_full_redis_takes_no_job_and_keeps_no_image(endpoint: Endpoint, tmp_path: Path) -> None:
    """While the memory of Redis is full, a request gets 503 and leaves no image; later it succeeds."""
    with queue(endpoint, tmp_path) as (served, worker, redis), closing(Redis.from_url(redis.url)) as client:
        client.config_set("maxmemory", 1)
        reply = send(served)
        assert errors_of(reply)[:2] == (503, "queue_full")
        assert "raise its maxmemory" in errors_of(reply)[2]
        assert images(tmp_path) == []
        client.config_set("maxmemory", 0)
        sent(served)
        assert len(worker.claim(9)) == 1


@pytest.mark.long
def test_a_wrong_password_ends_the_start(tmp_path: Path) -> None:
    """If Redis refuses the password, the service does not start, with exit code 2, and shows no password."""
    with RedisServer(tmp_path, password="right") as redis:
        wrong = redis.url.replace("right", "geheim")
        words = ("--port", "0", "--model", "m", "--store", str(tmp_path / "store"))
        done = run("serve", *words, VLMBATCH_QUEUE=wrong)
    assert done.returncode == 2
    assert "refuses the password" in done.stderr
    assert "geheim" not in done.stderr
