"""OpenAI's Files API and Batch API, as the package openai uses them."""

import json
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from command import run
from endpoint import Endpoint
from openai.types import Batch
from redis_server import RedisServer
from serving import KEY, Served, command_serving, data_url, errors_of, picture
from waiting import until
from written_results import answered, failed

from vlmbatch.jobs.batches import Batches
from vlmbatch.jobs.claims import Claim, Claims
from vlmbatch.jobs.job_queue import JobQueue, queues_of
from vlmbatch.jobs.names import job_key
from vlmbatch.service.batch_api import reconciler
from vlmbatch.service.batch_api.file_index import FILE_S

ENDS = ("completed", "failed", "cancelled")
KEYS = tuple(f"{name}:{name}-{KEY}" for name in ("alice", "bob"))


@pytest.fixture
def at(
    redis_of_module: RedisServer, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The options of a service for the queue, which looks at its batches all the time."""
    monkeypatch.setattr(reconciler, "PERIOD_S", 0.05)
    return {"queue": redis_of_module.url, "store": str(tmp_path / "store")}


@contextmanager
def client_of(url: str, key: str = "none") -> Iterator[openai.OpenAI]:
    """A client of the package openai."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as made:
        yield made


def asking(custom_id: str, url: str | None = None, **body: Any) -> dict[str, Any]:
    """A line of an input file: a question about one picture."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url or data_url(picture(zlib.crc32(custom_id.encode())))}},
    ]
    messages = [{"role": "user", "content": parts}]
    usual = {"model": "tiny-vision", "messages": messages}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": usual | body}


def many(number: int) -> list[dict[str, Any]]:
    """So many lines with different pictures."""
    return [asking(f"picture-{n:03}") for n in range(number)]


def started(client: openai.OpenAI, requests: Iterable[dict[str, Any] | str]) -> str:
    """The id of a batch with these lines."""
    texts = (line if isinstance(line, str) else json.dumps(line) for line in requests)
    content = "".join(f"{text}\n" for text in texts).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    assert (batch.status, batch.metadata, batch.expires_at) == ("validating", {"a": "b"}, None)
    return batch.id


def reached(client: openai.OpenAI, batch_id: str, *statuses: str) -> Batch:
    """The batch, once it has one of these states."""
    until(lambda: client.batches.retrieve(batch_id).status in statuses)
    return client.batches.retrieve(batch_id)


def lines_in(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file by their custom_id, of which none is there twice."""
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def work(endpoint: Endpoint, at: dict[str, Any]) -> None:
    """Let a real worker empty the queue."""
    words = [f"--{name}={value}" for name, value in at.items()]
    words += ["--backend=ollama", f"--base-url={endpoint.url}", "--model=tiny-vision", "--until-empty"]
    done = run("worker", *words)
    assert done.returncode == 0, done.stderr


def claims_of(queue: JobQueue) -> Claims:
    """The claims of a worker."""
    return Claims(queue.connection, "one", queues_of(["tiny-vision"]), lambda told: None)


def finish(claims: Claims, jobs: Sequence[Claim]) -> None:
    """Give these jobs an answer."""
    claims.finish([(each, answered(each.job.image_id).to_record()) for each in jobs])


@pytest.mark.long
def test_the_package_openai_runs_a_batch(endpoint: Endpoint, at: dict[str, Any], queue: JobQueue) -> None:
    """Each of fifty requests has one answer of its own in the output file, and a minute later the queue and
    the store have nothing of the batch but its files."""
    endpoint.answer = lambda request: "a cat"
    with Served(endpoint, **at) as served, client_of(served.url) as client:
        batch_id = started(client, many(50))
        batch = reached(client, batch_id, "in_progress")
        assert batch.request_counts is not None
        assert (batch.request_counts.total, batch.request_counts.completed) == (50, 0)
        work(endpoint, at)
        batch = reached(client, batch_id, *ENDS)
        assert (batch.status, batch.error_file_id, batch.errors) == ("completed", None, None)
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 50, "completed": 50, "failed": 0}
        assert batch.completed_at is not None
        lines = lines_in(client, batch.output_file_id)
        assert list(lines) == [f"picture-{n:03}" for n in range(50)]
        replies = [openai.types.chat.ChatCompletion(**line["response"]["body"]) for line in lines.values()]
        assert {reply.model for reply in replies} == {"tiny-vision"}
        assert {reply.choices[0].message.content for reply in replies} == {"a cat"}
        assert len({line["response"]["body"]["vlmbatch"]["image"]["sha256"] for line in lines.values()}) == 50
        assert batch.usage is not None
        assert batch.usage.total_tokens == sum(reply.usage.total_tokens for reply in replies if reply.usage)
        assert [each.id for each in client.batches.list()] == [batch_id]

        place = f"vlmbatch:api-batch:{batch_id}"
        queue.connection.redis.hdel(place, "completed_at")  # as if the service had died before that
        assert reached(client, batch_id, *ENDS).output_file_id == batch.output_file_id
        queue.connection.redis.hincrby(place, "completed_at", -int(reconciler.GRACE_S))
        store = Path(at["store"])
        until(lambda: not queue.connection.redis.keys(f"vlmbatch:batch:{batch_id}*"))
        until(lambda: len(list((store / ".vlmbatch" / "files").iterdir())) == 2)
        assert [path for path in (store / ".vlmbatch" / "jobs").rglob("*") if path.is_file()] == []
        assert queue.counts()["finished"] == 0
        assert lines_in(client, batch.output_file_id) == lines


@pytest.mark.long
def test_a_wrong_line_fails_alone(endpoint: Endpoint, at: dict[str, Any], queue: JobQueue) -> None:
    """A line that is wrong is in the error file with its number and its flaw; the others are answered."""
    wrong: list[tuple[dict[str, Any] | str, str | None, str]] = [
        ("{", None, "it is not JSON"),
        ('"text"', None, "not an object"),
        ({**asking("x"), "custom_id": None}, None, "custom_id must be a text"),
        (asking("good"), "good", "an earlier line has the same custom_id"),
        ({**asking("get"), "method": "GET"}, "get", "method must be 'POST'"),
        ({**asking("where"), "url": "/v1/embeddings"}, "where", "url must be '/v1/chat/completions'"),
        (asking("hot", temperature=9), "hot", "body.temperature must be at most 2"),
        (asking("piecewise", stream=True), "piecewise", "a batch has no streams"),
        (asking("blind", messages=[{"role": "user", "content": "a"}]), "blind", "messages has no image"),
        (asking("text", url="data:image/png;base64,QUJD"), "text", "is not an image"),
        (asking("far", url="http://localhost:1/a.jpg"), "far", "may not fetch images"),
        (asking("big", model="gpt-4o"), "big", "name one of these: tiny-vision"),
    ]
    with Served(endpoint, **at) as served, client_of(served.url) as client:
        batch_id = started(
            client, ["\ufeff" + json.dumps(asking("good")), *(line for line, _, _ in wrong), ""]
        )
        reached(client, batch_id, "in_progress")
        claims = claims_of(queue)
        finish(claims, claims.claim(9))
        batch = reached(client, batch_id, *ENDS)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 13, "completed": 1, "failed": 12}
        assert set(lines_in(client, batch.output_file_id)) == {"good"}
        assert batch.error_file_id is not None
        lines = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
        for number, (line, (_, custom_id, told)) in enumerate(zip(lines, wrong, strict=True), 2):
            error = line["response"]["body"]["error"]
            assert line["custom_id"] == custom_id
            assert error["message"].startswith(f"line {number}: ")
            assert told in error["message"]
            assert line["response"]["status_code"] in (400, 403, 404, 415, 422)


@pytest.mark.long
def test_a_batch_without_a_good_line_fails(endpoint: Endpoint, at: dict[str, Any]) -> None:
    """A file without a request is refused, or its batch fails with the reasons; another file is not found."""
    with Served(endpoint, **at) as served, client_of(served.url) as client:
        batch = reached(client, started(client, ["no JSON", "{}"]), *ENDS)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [error.line for error in batch.errors.data or ()] == [1, 2]
        assert reached(client, started(client, ["", " "]), *ENDS).status == "failed"
        with pytest.raises(openai.BadRequestError, match="the file is empty"):
            client.files.create(file=("a.jsonl", b""), purpose="batch")
        with pytest.raises(openai.UnprocessableEntityError, match="more than 50,000 lines"):
            client.files.create(file=("a.jsonl", b"{}\n" * 50_001), purpose="batch")
        with pytest.raises(openai.UnprocessableEntityError, match="purpose must be 'batch'"):
            client.files.create(file=("a.jsonl", b"{}"), purpose="vision")
        with pytest.raises(openai.NotFoundError, match="this file does not exist"):
            client.batches.create(
                input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
            )
        with pytest.raises(openai.UnprocessableEntityError, match="endpoint must be"):
            client.batches.create(input_file_id="a", endpoint="/v1/embeddings", completion_window="24h")


@pytest.mark.long
def test_a_cancelled_batch_keeps_its_answers(endpoint: Endpoint, at: dict[str, Any], queue: JobQueue) -> None:
    """After a cancel, requests in work end, and those that wait are in the error file as cancelled."""
    with Served(endpoint, **at) as served, client_of(served.url) as client:
        batch_id = started(client, many(20))
        reached(client, batch_id, "in_progress")
        claims = claims_of(queue)
        finish(claims, claims.claim(3))
        in_work = claims.claim(4)
        assert client.batches.cancel(batch_id).status == "cancelling"
        batches = Batches(queue)
        until(lambda: getattr(batches.state(batch_id), "cancelled", 0) == 13)
        assert client.batches.retrieve(batch_id).status == "cancelling"
        finish(claims, in_work)
        batch = reached(client, batch_id, *ENDS)
        assert batch.status == "cancelled"
        lines, errors = (lines_in(client, file) for file in (batch.output_file_id, batch.error_file_id))
        assert set(lines) == {f"picture-{n:03}" for n in range(7)}
        assert set(errors) == {f"picture-{n:03}" for n in range(7, 20)}
        assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
        with pytest.raises(openai.BadRequestError, match="has ended with the status cancelled"):
            client.batches.cancel(batch_id)


@pytest.mark.long
def test_a_batch_can_be_cancelled_while_its_jobs_are_made(
    endpoint: Endpoint, at: dict[str, Any], queue: JobQueue
) -> None:
    """A cancel during the validation makes no more jobs, and each line is in one of both files."""
    with Images() as images:
        at["allow_url_host"] = [images.host]
        with Served(endpoint, **at) as served, client_of(served.url) as client:
            batch_id = started(client, [*many(50), asking("url", url=f"http://{images.host}/")])
            assert images.asked.wait(120)
            claims = claims_of(queue)
            finish(claims, claims.claim(2))
            client.batches.cancel(batch_id)
            images.released.set()
            batch = reached(client, batch_id, *ENDS)
            assert batch.status == "cancelled"
            lines, errors = (lines_in(client, file) for file in (batch.output_file_id, batch.error_file_id))
            assert (len(lines), len(errors)) == (2, 49)


@pytest.mark.long
def test_failed_and_lost_requests_are_in_the_error_file(
    endpoint: Endpoint, at: dict[str, Any], queue: JobQueue
) -> None:
    """A failure of the model has its status and kind; a job that Redis lost does not hold the batch up."""
    with Served(endpoint, **at) as served, client_of(served.url) as client:
        batch_id = started(client, many(3))
        reached(client, batch_id, "in_progress")
        claims = claims_of(queue)
        first, second, third = claims.claim(3)
        claims.finish([(first, failed("picture-000", kind="refused").to_record())])
        claims.finish([(second, {"status": "ok", "response": 1})])
        queue.connection.redis.delete(job_key(third.job.id))
        batch = reached(client, batch_id, *ENDS)
        assert (batch.status, batch.output_file_id) == ("completed", None)
        lines = lines_in(client, batch.error_file_id)
        refused = lines["picture-000"]["response"]
        assert (refused["status_code"], refused["body"]["error"]["code"]) == (422, "refused")
        assert [lines[f"picture-00{n}"]["error"]["code"] for n in (1, 2)] == ["job_lost", "job_lost"]


@pytest.mark.long
def test_a_client_sees_only_its_own_files_and_batches(endpoint: Endpoint, at: dict[str, Any]) -> None:
    """Another API key finds neither a file nor a batch, not in a list either, and cannot use them."""
    with (
        Served(endpoint, service_key=KEYS, **at) as served,
        client_of(served.url, f"alice-{KEY}") as alice,
        client_of(served.url, f"bob-{KEY}") as bob,
    ):
        batch_id = started(alice, many(1))
        file_id = alice.batches.retrieve(batch_id).input_file_id
        calls: list[Callable[[], object]] = [
            lambda: bob.files.retrieve(file_id),
            lambda: bob.files.content(file_id),
            lambda: bob.files.delete(file_id),
            lambda: bob.batches.retrieve(batch_id),
            lambda: bob.batches.cancel(batch_id),
            lambda: bob.batches.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        ]
        for call in calls:
            with pytest.raises(openai.NotFoundError, match="belongs to another API key"):
                call()
        assert (list(bob.files.list()), list(bob.batches.list())) == ([], [])
        assert [file.id for file in alice.files.list()] == [file_id]


@pytest.mark.long
def test_files_are_listed_in_pages_and_deleted(
    endpoint: Endpoint, at: dict[str, Any], queue: JobQueue
) -> None:
    """Pages follow each other in both orders, a deleted file is gone, and old files are deleted."""
    with Served(endpoint, **at) as served, client_of(served.url) as client:
        ids = [client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch").id for n in range(5)]
        assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
        assert [file.id for file in client.files.list(limit=2, order="asc")] == ids
        assert list(client.files.list(purpose="batch_output")) == []
        page = client.files.list(limit=2, after=ids[1], order="asc")
        assert ([file.filename for file in page.data], page.has_more) == (["2.jsonl", "3.jsonl"], True)
        with pytest.raises(openai.UnprocessableEntityError, match="after is not an id of this list"):
            client.files.list(after="file-1")
        assert client.files.delete(ids[0]).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.content(ids[0])
        assert client.files.content(ids[1]).read() == b"{}"
        assert client.files.retrieve(ids[1]).expires_at == client.files.retrieve(ids[1]).created_at + FILE_S
        queue.connection.redis.zadd("vlmbatch:file-expiry", {ids[1]: 1.0})
    with Served(endpoint, **at) as served, client_of(served.url) as client:  # deletes old files at its start
        until(lambda: len(list(client.files.list())) == 3)
        assert not (Path(at["store"]) / ".vlmbatch" / "files" / ids[1]).exists()


class Images:
    """A web server whose picture waits until `released`."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.released = threading.Event()
        images = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                images.asked.set()
                images.released.wait(120)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(picture(3))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Images":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.long
def test_another_service_goes_on_after_a_kill(
    endpoint: Endpoint, at: dict[str, Any], queue: JobQueue, tmp_path: Path
) -> None:
    """A service is killed while it makes the jobs of a batch. The next one makes the others, each once."""
    redis = queue.connection.redis
    words = [f"--{name}={value}" for name, value in at.items()]
    with Images() as images:
        requests = [*many(50), asking("url", url=f"http://{images.host}/a.jpg")]
        with (
            command_serving(endpoint, *words, "--allow-url-host", images.host, folder=tmp_path) as (
                url,
                process,
                _,
            ),
            client_of(url) as client,
        ):
            batch_id = started(client, requests)
            assert images.asked.wait(120)
            assert client.batches.retrieve(batch_id).status == "validating"
            process.kill()
            process.wait()
        assert queue.counts()["queued"] == 50
        claims = claims_of(queue)
        early = claims.claim(5)
        finish(claims, early)
        images.released.set()
        redis.delete(f"vlmbatch:batch:{batch_id}:keep")  # its time is over
        with Served(endpoint, allow_url_host=[images.host], **at) as served, client_of(served.url) as client:
            reached(client, batch_id, "in_progress")
            late = claims.claim(100)
            assert len(late) == 46
            finish(claims, late)
            batch = reached(client, batch_id, *ENDS)
            assert len(lines_in(client, batch.output_file_id)) == 51


@pytest.mark.long
def test_a_full_redis_loses_nothing(endpoint: Endpoint, at: dict[str, Any], queue: JobQueue) -> None:
    """While Redis is full, requests get 503 and a batch waits; once it has room, the batch goes on."""
    redis = queue.connection.redis
    with Images() as images:
        at["allow_url_host"] = [images.host]
        with Served(endpoint, **at) as served, client_of(served.url) as client:
            batch_id = started(client, [asking("url", url=f"http://{images.host}/a.jpg"), asking("b")])
            assert images.asked.wait(120)
            redis.config_set("maxmemory", 1)
            try:
                with pytest.raises(openai.InternalServerError) as caught:
                    started(client, many(2))
                assert caught.value.code == "queue_full"
                images.released.set()
                until(lambda: sum("vlmbatch: the memory of the Redis" in line for line in served.log) >= 1)
                assert client.batches.retrieve(batch_id).status == "validating"
            finally:
                redis.config_set("maxmemory", 0)
            reached(client, batch_id, "in_progress")
            claims = claims_of(queue)
            finish(claims, claims.claim(5))
            batch = reached(client, batch_id, *ENDS)
            assert set(lines_in(client, batch.output_file_id)) == {"url", "b"}


def test_without_a_queue_the_routes_say_so(endpoint: Endpoint) -> None:
    """Without --queue, each route has the status 503 and the reason in OpenAI's form, and is described."""
    with Served(endpoint) as served:
        replies = [
            served.client.get("/v1/files"),
            served.client.post("/v1/files", files={"file": b"{}"}, data={"purpose": "batch"}),
            served.client.get("/v1/files/file-1"),
            served.client.delete("/v1/files/file-1"),
            served.client.get("/v1/files/file-1/content"),
            served.client.get("/v1/batches"),
            served.client.post("/v1/batches", json={}),
            served.client.get("/v1/batches/batch_1"),
            served.client.post("/v1/batches/batch_1/cancel"),
        ]
        paths = served.client.get("/openapi.json").json()["paths"]
    for reply in replies:
        assert errors_of(reply)[:2] == (503, "no_queue")
        assert "--queue redis://" in errors_of(reply)[2]
    described = {(method, path) for path, methods in paths.items() for method in methods}
    assert {
        ("get", "/v1/files"),
        ("post", "/v1/files"),
        ("delete", "/v1/files/{file_id}"),
        ("get", "/v1/files/{file_id}/content"),
        ("post", "/v1/batches"),
        ("get", "/v1/batches/{batch_id}"),
        ("post", "/v1/batches/{batch_id}/cancel"),
    } <= described
