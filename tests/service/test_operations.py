"""What the operator of the service sees: the log, the metrics and the description of the routes."""

import json

from endpoint import Endpoint
from serving import Served, data_url, in_base64, picture
from waiting import until

SECRET = "sk-secret-of-the-endpoint"


def test_each_request_has_one_line_in_the_log(endpoint: Endpoint) -> None:
    """A line has the id, the status and 50 characters of the prompt, but no picture, answer or key."""
    endpoint.answer = lambda request: "a very private answer"
    with Served(endpoint, api_key=SECRET) as served:
        coded = in_base64(picture())
        prompt = "first line\n\x1b[31msecond " + "p" * 60
        asked = {"image_base64": coded, "prompt": prompt}
        reply = served.client.post("/analyze", json=asked, headers={"X-Request-ID": "trace-1"})
        assert reply.headers["X-Request-ID"] == reply.json()["request_id"] == "trace-1"
        line = served.logged("trace-1")
        served.client.get("/health")
        served.client.get("/nothing 200 request_id=forged")
        assert '"/nothing 200 request_id=forged" 404 ' in served.logged("404")
        lines = served.log
    assert "POST /analyze 200 " in line
    assert "answer_chars=21" in line
    assert line.isprintable()
    assert "p" * 20 in line
    assert "p" * 40 not in line
    assert not any("private" in each or coded[:30] in each or SECRET in each for each in lines)
    assert not any("/health" in each for each in lines)


def test_the_log_may_be_json(endpoint: Endpoint) -> None:
    """With --log-json each line is a JSON object with the same fields."""
    with Served(endpoint, log_json=True) as served:
        served.upload(prompt="what?")
        line = json.loads(served.logged("/analyze/upload"))
    assert line["event"] == "request"
    assert (line["method"], line["path"], line["status"], line["prompt"]) == (
        "POST",
        "/analyze/upload",
        200,
        "what?",
    )
    assert line["duration_s"] >= 0
    assert line["answer_chars"] > 0


def test_the_metrics_count_what_happened(endpoint: Endpoint) -> None:
    """Requests, sizes, tokens, retries and the state of the endpoint are in /metrics, by route and kind."""
    endpoint.script = ["500", "ok", "content_filter"]
    with Served(endpoint, give_up_after=0) as served:
        served.upload(picture(1))
        served.upload(picture(2))
        served.upload(picture(1))
        served.client.get("/no/such/route")
        route = 'route="/analyze/upload"'
        until(lambda: 'vlm_requests_total{kind="not_found",route="unknown",status="404"}' in served.metrics())
        found = served.metrics()
        at = f'endpoint="{endpoint.url}",model="tiny-vision"'
        assert found[f'vlm_requests_total{{kind="",{route},status="200"}}'] == 2
        assert found[f'vlm_requests_total{{kind="refused",{route},status="422"}}'] == 1
        assert found[f'vlm_request_latency_seconds_count{{kind="",{route},status="200"}}'] == 2
        assert found[f"vlm_image_size_bytes_count{{{route}}}"] == 3
        assert found[f"vlm_image_pixels_sum{{{route}}}"] == 3 * 64 * 48
        assert found[f'vlm_tokens_total{{direction="output",model="tiny-vision",{route}}}'] > 0
        assert found[f"vlm_known_total{{{route}}}"] == 1
        assert found['vlm_retries_total{kind="server_error"}'] == 1
        assert found[f"vlm_endpoint_up{{{at}}}"] == 1
        assert found[f"vlm_endpoint_in_flight{{{at}}}"] == 0
        assert found['vlm_requests_total{kind="not_found",route="unknown",status="404"}'] == 1
        endpoint.down()
        served.client.post("/analyze/upload", files={"file": picture(9)}, timeout=240)
        until(lambda: served.metrics()[f"vlm_endpoint_up{{{at}}}"] == 0)
        endpoint.up()


def test_the_description_of_the_routes_names_all_of_them(endpoint: Endpoint) -> None:
    """/openapi.json has each route with its bodies; no page loads scripts from other hosts."""
    with Served(endpoint) as served:
        paths = served.client.get("/openapi.json").json()["paths"]
        assert served.client.get("/docs").status_code == 404
    assert set(paths) == {
        *("/analyze", "/analyze/upload", "/analyze/optimized", "/analyze/batch"),
        *("/analyze/async", "/job/{id}"),
        *("/v1/files", "/v1/files/{file_id}", "/v1/files/{file_id}/content"),
        *("/v1/batches", "/v1/batches/{batch_id}", "/v1/batches/{batch_id}/cancel"),
        *("/health", "/ready", "/metrics", "/v1/models", "/v1/chat/completions"),
    }
    body = paths["/analyze/optimized"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert {"image_base64", "max_size", "schema"} <= set(body["application/json"]["schema"]["properties"])


def test_the_page_is_served_with_a_strict_policy(endpoint: Endpoint) -> None:
    """The page, its style and its script come from the service itself, and load nothing else."""
    with Served(endpoint) as served:
        page = served.client.get("/")
        assert page.headers["Content-Type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "http://" not in page.text.replace("http://www.w3.org", "")
        assert "https://" not in page.text
        for path, kind in (("/page.css", "text/css"), ("/page.js", "text/javascript")):
            assert served.client.get(path).headers["Content-Type"].startswith(kind)


def test_a_picture_in_a_data_url_is_not_in_the_log(endpoint: Endpoint) -> None:
    """A chat request leaves no picture in the log, and its prompt is cut, too."""
    parts = [
        {"type": "text", "text": "q" * 80},
        {"type": "image_url", "image_url": {"url": data_url(picture())}},
    ]
    with Served(endpoint) as served:
        served.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}]})
        line = served.logged("/v1/chat")
    assert "base64" not in line
    assert "q" * 50 in line
    assert "q" * 51 not in line
