"""The routes about pictures: each gives a record with its answer, and each failure its status and kind."""

import json
import threading
from collections.abc import Iterator

import httpx
import pytest
from endpoint import Endpoint
from serving import Served, errors_of, in_base64, lines_of, picture
from waiting import until

from vlmbatch.endpoints import pool

SCHEMA = {
    "type": "object",
    "properties": {"z": {"type": "string"}, "a": {"type": "string"}},
    "required": ["z"],
}
TEXT = b"\n".join([b"no picture"] * 20)


@pytest.fixture
def served(endpoint: Endpoint) -> Iterator[Served]:
    """A service in front of the endpoint."""
    with Served(endpoint) as running:
        yield running


def test_a_picture_in_base64_is_answered_as_in_the_tutorials(served: Served, endpoint: Endpoint) -> None:
    """{prompt, image_base64} gives {result}, with all fields of a record; the prompt arrives unchanged."""
    asked = {"prompt": " What is\tthis? ", "image_base64": in_base64(picture())}
    reply = served.client.post("/analyze", json=asked)
    assert reply.status_code == 200
    body = reply.json()
    (request,) = endpoint.questions
    assert request.body["messages"][-1]["content"] == " What is\tthis? "
    assert body["result"] == body["response"]
    assert (body["status"], body["error"], body["model"], body["v"]) == ("ok", None, "tiny-vision", 1)
    assert body["usage"]["output_tokens"] > 0
    assert body["image"]["width"] == 64
    assert body["request_id"] == reply.headers["X-Request-ID"] == body["id"]


@pytest.mark.parametrize("form", ["data:image/png;base64,{}", "{}\n", "data:;base64,{}"])
def test_base64_may_be_a_data_url_or_have_line_ends(served: Served, form: str) -> None:
    """A data URL is read, and so is base64 in lines, as the command base64 writes it."""
    coded = form.format(in_base64(picture(kind="PNG")))
    assert served.client.post("/analyze", json={"image_base64": coded}).status_code == 200


def test_an_upload_is_answered_with_the_prompt_in_the_form_or_in_the_url(
    served: Served, endpoint: Endpoint
) -> None:
    """The prompt is a field of the form or of the URL, but not of both; the id is the file's name."""
    files = {"file": ("holiday.jpg", picture())}
    assert served.client.post("/analyze/upload?prompt=of+the+URL", files=files).json()["id"] == "holiday.jpg"
    served.client.post("/analyze/upload", files=files, data={"prompt": "of the form"})
    served.client.post("/analyze/upload", files=files)
    both = served.client.post("/analyze/upload?prompt=of+the+URL", files=files, data={"prompt": "again"})
    assert errors_of(both) == (422, "bad_option", "prompt is given more than once; write it once")
    prompts = [request.body["messages"][-1]["content"] for request in endpoint.questions]
    assert prompts == ["of the URL", "of the form", "Describe this image."]


def test_a_large_upload_is_answered(served: Served, endpoint: Endpoint) -> None:
    """A file that is larger than what is kept in memory while it arrives is sent whole."""
    data = picture() + bytes(3_000_000)  # bytes behind the end of a JPEG
    reply = served.upload(data)
    assert reply.status_code == 200
    name = 'vlm_image_size_bytes_sum{route="/analyze/upload"}'
    until(lambda: served.metrics().get(name) == len(data))


@pytest.mark.parametrize("is_json", [True, False])
def test_an_explicit_size_is_used_and_told(served: Served, is_json: bool) -> None:
    """/analyze/optimized shrinks the picture as asked, and tells the size that the model got."""
    data, size = picture(1, (400, 300)), {"max_size": 100, "quality": 40}
    if is_json:
        reply = served.client.post("/analyze/optimized", json={"image_base64": in_base64(data), **size})
    else:
        reply = served.client.post("/analyze/optimized", files={"file": data}, data=size)
    body = reply.json()
    assert (body["optimized"]["width"], body["optimized"]["height"]) == (100, 75)
    assert body["optimized"]["bytes"] == body["image"]["sent_bytes"] < len(data)
    assert body["image"]["width"] == 400


def test_the_options_of_a_request_reach_the_model(served: Served, endpoint: Endpoint) -> None:
    """system, max_tokens, temperature, seed and schema are those of the request, the schema in its order."""
    endpoint.answer = lambda request: '{"z": "x"}'
    options = {"system": "be brief", "max_tokens": 33, "temperature": 0.5, "seed": 7, "schema": SCHEMA}
    asked = {"image_base64": in_base64(picture()), "prompt": "p", **options}
    reply = served.client.post("/analyze", json=asked)
    assert reply.json()["data"] == {"z": "x"}
    body = endpoint.questions[0].body
    assert body["options"]["num_predict"] == 33
    assert (body["options"]["temperature"], body["options"]["seed"]) == (0.5, 7)
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    assert list(body["format"]["properties"]) == ["z", "a"]
    form = {"schema": json.dumps(SCHEMA), "max_tokens": "33", "seed": "7", "temperature": "0.5"}
    assert served.upload(picture(1), **form).json()["data"] == {"z": "x"}
    again = endpoint.questions[1].body
    assert again["options"] == body["options"]
    assert again["format"] == body["format"]


def test_a_request_may_name_only_the_models_of_the_service(endpoint: Endpoint) -> None:
    """A request names one of the models of the service; each model has its own session."""
    endpoint.models["other-vision"] = endpoint.models["tiny-vision"]
    with Served(endpoint, allow_model=("other-vision",)) as served:
        assert served.upload(model="other-vision").json()["model"] == "other-vision"
        assert served.upload().json()["model"] == "tiny-vision"
        status, kind, message = errors_of(served.upload(model="gpt-4o"))
    assert (status, kind) == (404, "not_found")
    assert "tiny-vision, other-vision" in message


def test_a_batch_gives_lines_as_they_come(served: Served, endpoint: Endpoint) -> None:
    """Each picture of a batch has one line, as soon as it is ready, and a failure is a line, too."""
    first = threading.Event()
    endpoint.hold_until(first.is_set, after=1)
    images = [
        {"id": "a", "image_base64": in_base64(picture(1))},
        in_base64(picture(2)),
        {"id": "broken", "image_base64": in_base64(picture(3)[:200])},
    ]
    with served.client.stream("POST", "/analyze/batch", json={"images": images, "prompt": "p"}) as reply:
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        lines = []
        for line in reply.iter_lines():
            lines.append(json.loads(line))
            if len(lines) == 2:  # the third one is held until these have come
                first.set()
    assert sorted(line["index"] for line in lines) == [0, 1, 2]
    assert {line["id"]: line["status"] for line in lines} == {"a": "ok", "2": "ok", "broken": "error"}
    broken = next(line for line in lines if line["id"] == "broken")
    assert broken["error"]["kind"] == "bad_image"
    assert broken["result"] is None


def test_a_batch_needs_one_place(endpoint: Endpoint) -> None:
    """With --max-requests 1, all pictures of a batch are answered, although many of them wait at once."""
    with Served(endpoint, max_requests=1) as served:
        files = [("file", (f"p{n}.jpg", picture(n))) for n in range(20)]
        lines = lines_of(served.client.post("/analyze/batch", files=files))
    assert [line["status"] for line in lines] == ["ok"] * 20


def test_a_batch_may_be_a_form(served: Served) -> None:
    """Many files in a form are a batch; the lines have the names of the files."""
    files = [("file", (f"p{n}.jpg", picture(n))) for n in range(3)]
    reply = served.client.post("/analyze/batch", files=files, data={"prompt": "p"})
    assert sorted(line["id"] for line in lines_of(reply)) == ["p0.jpg", "p1.jpg", "p2.jpg"]


def test_the_same_question_is_sent_once(served: Served, endpoint: Endpoint) -> None:
    """A second request about the same picture gets the known answer."""
    first, second = served.upload(), served.upload()
    assert second.json()["result"] == first.json()["result"]
    assert second.json()["attempts"] == 0
    assert len(endpoint.questions) == 1


@pytest.mark.parametrize(
    ("mode", "status", "kind"),
    [
        ("400-image", 422, "rejected"),
        ("content_filter", 422, "refused"),
        ("context", 422, "context"),
        ("empty", 502, "empty"),
        ("loop", 502, "degenerate"),
    ],
)
def test_a_failure_of_the_model_has_a_fitting_status(
    endpoint: Endpoint, mode: str, status: int, kind: str
) -> None:
    """A failure is a record with its kind, and its status says whose fault it is."""
    endpoint.script = lambda request: mode
    with Served(endpoint, retries=0) as served:
        reply = served.upload()
    assert (reply.status_code, reply.json()["error"]["kind"], reply.json()["status"]) == (
        status,
        kind,
        "error",
    )
    assert reply.json()["attempts"] == 1


def test_a_slow_model_is_a_timeout(endpoint: Endpoint) -> None:
    """When the deadline of a request has passed, the client gets 504, and its place is free again."""
    endpoint.script = ["held"]
    with Served(endpoint, deadline=0.3) as served:
        reply = served.upload()
        assert (reply.status_code, reply.json()["error"]["kind"]) == (504, "timeout")
        until(lambda: endpoint.open_questions == 0)
        assert served.service.models.default.session.state.endpoints[0].in_flight == 0


def test_a_busy_model_is_no_timeout(endpoint: Endpoint) -> None:
    """If the endpoint refuses requests as busy until the deadline, the client gets 503 and may try again."""
    endpoint.script = lambda request: "503-busy"
    with Served(endpoint, deadline=0.5) as served:
        reply = served.upload()
    assert (reply.status_code, reply.json()["error"]["kind"]) == (503, "busy")
    assert reply.json()["error"]["message"].endswith(" s: the endpoint is busy")
    assert int(reply.headers["Retry-After"]) > 0


def test_an_endpoint_that_is_away_gives_503_until_it_is_back(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the endpoint is down, requests get 503 with Retry-After and the reason; later all is well."""
    monkeypatch.setattr(pool, "RECOVERY_S", 0.1)
    with Served(endpoint, give_up_after=0) as served:
        endpoint.down()
        reply = served.upload()
        assert (reply.status_code, reply.json()["error"]["kind"]) == (503, "down")
        assert int(reply.headers["Retry-After"]) > 0
        ready = served.client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        assert endpoint.url in ready.json()["reason"]
        assert served.client.get("/health").json() == {"status": "ok"}
        endpoint.up()
        until(lambda: served.client.get("/ready").status_code == 200)
        assert served.upload().status_code == 200


def test_a_blind_model_is_not_ready(endpoint: Endpoint) -> None:
    """A model that does not see pictures makes the service not ready, and requests say so."""
    endpoint.blind = True
    with Served(endpoint) as served:
        until(lambda: "being proven" not in served.client.get("/ready").text)
        assert served.client.get("/ready").status_code == 503
        reply = served.upload()
    status, kind, _ = errors_of(reply)
    assert (status, kind) == (502, "no_vision")
    assert not reply.json()["error"]["retryable"]


def test_a_client_that_leaves_frees_its_place(served: Served, endpoint: Endpoint) -> None:
    """When a client closes the connection, its request to the model ends, and the log says so."""
    endpoint.script = ["held"]
    with pytest.raises(httpx.ReadTimeout):
        served.client.post("/analyze/upload", files={"file": picture()}, timeout=0.3)
    until(lambda: endpoint.open_questions == 0)
    assert "499" in served.logged("client_gone")
    assert served.upload(picture(2)).status_code == 200
