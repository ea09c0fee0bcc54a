"""The limits of the service: keys, rates, sizes, slow clients and the number of requests in progress."""

import hashlib
import http.client
import json
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from endpoint import Endpoint
from serving import BEARER, KEY, Served, errors_of, in_base64, picture
from waiting import until

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError
from vlmbatch.service import body, server


def keys_file(folder: Path, **more: str) -> Path:
    """A file with the keys alice and bob, whose texts begin with their names; `more` are lines for alice."""
    entries = []
    for name in ("alice", "bob"):
        digest = hashlib.sha256(f"{name}-{KEY}".encode()).hexdigest()
        lines = [f"[keys.{name}]", f'sha256 = "{digest}"']
        entries += lines + (
            [f"{field} = {value}" for field, value in more.items()] if name == "alice" else []
        )
    file = folder / "keys.toml"
    file.write_text("\n".join(entries))
    return file


def bearer(name: str) -> dict[str, str]:
    """The header with the key of this name."""
    return {"Authorization": f"Bearer {name}-{KEY}"}


def test_requests_need_a_key_if_there_are_keys(endpoint: Endpoint, tmp_path: Path) -> None:
    """Only /health, /ready and the page are open; a key is taken from either header, and is never logged."""
    with Served(endpoint, keys_file=keys_file(tmp_path), service_key=f"env:{KEY}") as served:
        for path in ("/health", "/ready", "/", "/page.js", "/openapi.json"):
            assert served.client.get(path).status_code == 200
        for path in ("/metrics", "/v1/models", "/nothing"):
            reply = served.client.get(path)
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert endpoint.url not in served.client.get("/ready").text
        assert served.upload().status_code == 401
        assert served.upload(headers={"Authorization": "Bearer alice"}).status_code == 401
        assert served.upload(headers={"Authorization": f"Basic {KEY}"}).status_code == 401
        assert len(endpoint.questions) == 0
        assert served.upload(headers=bearer("alice")).status_code == 200
        assert served.upload(headers={"X-API-Key": f"bob-{KEY}"}).status_code == 200
        assert served.upload(headers=BEARER).status_code == 200
        assert "key=alice" in served.logged("key=alice")
        assert KEY not in "".join(served.log)


def test_an_address_that_tries_wrong_keys_must_wait(endpoint: Endpoint) -> None:
    """After twenty wrong keys in a minute, a wrong key gets 429; the right key is still accepted."""
    with Served(endpoint, service_key=f"a:{KEY}") as served:
        wrong = [served.client.get("/v1/models", headers={"X-API-Key": f"{n}" * 20}) for n in range(21)]
        assert [reply.status_code for reply in wrong] == [401] * 20 + [429]
        assert int(wrong[-1].headers["Retry-After"]) > 0
        assert served.client.get("/v1/models", headers=BEARER).status_code == 200


def test_a_changed_keys_file_counts_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    """A key that is removed from the file is refused soon, and an added one is accepted."""
    file = keys_file(tmp_path)
    with Served(endpoint, keys_file=file) as served:
        assert served.client.get("/v1/models", headers=bearer("bob")).status_code == 200
        text = f'[keys.carol]\nsha256 = "{hashlib.sha256(f"carol-{KEY}".encode()).hexdigest()}"\n'
        file.write_text(text)
        until(lambda: served.client.get("/v1/models", headers=bearer("bob")).status_code == 401)
        assert served.client.get("/v1/models", headers=bearer("carol")).status_code == 200


def test_nothing_of_one_key_is_found_by_another(endpoint: Endpoint, tmp_path: Path) -> None:
    """Answers are shared only within a key: at the same time, later, and over the cache on disk."""
    endpoint.hold_until(lambda: endpoint.open_questions == 2)
    options = {"keys_file": keys_file(tmp_path), "cache": tmp_path / "cache"}
    with Served(endpoint, **options) as served, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(served.upload, headers=bearer(name)) for name in ("alice", "bob")]
        bodies = [each.result().json() for each in asking]
        assert [(each["status"], each["attempts"]) for each in bodies] == [("ok", 1)] * 2
        assert not any("cached" in each or "duplicate_of" in each for each in bodies)
        assert served.upload(headers=bearer("alice")).json()["attempts"] == 0
        assert len(endpoint.questions) == 2
    with Served(endpoint, **options) as served:
        assert served.upload(headers=bearer("bob")).json()["cached"] is True
        assert served.upload(picture(5), headers=bearer("alice")).json()["attempts"] == 1
        assert "cached" not in served.upload(picture(5), headers=bearer("bob")).json()


def test_a_key_has_its_own_limits(endpoint: Endpoint, tmp_path: Path) -> None:
    """A key may have a rate, a number of requests at once, and models; other keys do not have them."""
    limits = {"rate": '"3/hour"', "concurrent": "1", "models": '["tiny-vision"]'}
    endpoint.models["other-vision"] = endpoint.models["tiny-vision"]
    with Served(endpoint, keys_file=keys_file(tmp_path, **limits), allow_model="other-vision") as served:
        with ThreadPoolExecutor(1) as pool:
            endpoint.hold_until(lambda: len(refused) == 1)
            refused: list[httpx.Response] = []
            first = pool.submit(served.upload, headers=bearer("alice"))
            until(lambda: endpoint.open_questions == 1)
            refused.append(served.upload(picture(1), headers=bearer("alice")))
            assert first.result().status_code == 200
        assert errors_of(refused[0])[:2] == (429, "rate_limited")
        assert errors_of(served.upload(headers=bearer("alice"), model="other-vision"))[:2] == (
            404,
            "not_found",
        )
        reply = served.upload(headers=bearer("alice"))
        assert errors_of(reply)[:2] == (429, "rate_limited")
        assert 0 < int(reply.headers["Retry-After"]) <= 3600
        for number in range(4):
            assert (
                served.upload(picture(number), headers=bearer("bob"), model="other-vision").status_code == 200
            )


def test_a_rate_without_keys_is_that_of_the_address(endpoint: Endpoint) -> None:
    """Without keys, each address has the rate; /health has none."""
    with Served(endpoint, rate="2/hour") as served:
        assert [served.upload().status_code for _ in range(3)] == [200, 200, 429]
        assert all(served.client.get("/health").status_code == 200 for _ in range(5))


def test_the_address_behind_a_trusted_proxy_counts(endpoint: Endpoint) -> None:
    """X-Forwarded-For counts only if the proxy is trusted."""
    told = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(2)]
    with Served(endpoint, rate="1/hour", trusted_proxy="127.0.0.1") as served:
        assert [served.client.get("/v1/models", headers=h).status_code for h in (*told, told[0])] == [
            200,
            200,
            429,
        ]
    with Served(endpoint, rate="1/hour") as served:
        assert [served.client.get("/v1/models", headers=h).status_code for h in told] == [200, 429]


def test_too_many_requests_at_once_get_503(endpoint: Endpoint) -> None:
    """Beyond --max-requests a request is refused at once, but for metrics; those in progress are answered."""
    endpoint.hold_until(lambda: len(refused) == 1)
    refused: list[httpx.Response] = []
    with Served(endpoint, max_requests=2) as served, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(served.upload, picture(n)) for n in range(2)]
        until(lambda: endpoint.open_questions == 2)
        reply = served.upload(picture(3))
        assert served.client.get("/health").status_code == 200
        assert served.metrics()["vlm_requests_in_flight"] >= 3
        refused.append(reply)
        assert [each.result().status_code for each in asking] == [200, 200]
    assert errors_of(refused[0])[:2] == (503, "overloaded")
    assert int(refused[0].headers["Retry-After"]) > 0


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_is_refused_while_it_is_read(endpoint: Endpoint, is_chunked: bool) -> None:
    """A body beyond --max-body gets 413, by its declared size or by the bytes that have come."""

    def chunks():
        for _ in range(40):
            yield bytes(10_000)

    content = chunks() if is_chunked else bytes(400_000)
    with Served(endpoint, max_body=100_000) as served:
        reply = served.client.post("/analyze", content=content, headers={"Content-Type": "application/json"})
        assert errors_of(reply)[:2] == (413, "too_large")
        assert served.upload().status_code == 200


def test_a_slow_body_is_refused(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stops in the middle of its body gets 408, and its connection is closed."""
    monkeypatch.setattr(body, "STALL_S", 0.2)
    with Served(endpoint) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=240)
        connection.putrequest("POST", "/analyze")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"prompt": ')
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Connection"]) == (408, "close")
        assert b"slow_request" in reply.read()
        connection.close()


def test_a_body_must_arrive_within_the_deadline(endpoint: Endpoint) -> None:
    """A body that always arrives a little more does not hold its place longer than --deadline."""
    with Served(endpoint, deadline=0.1) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=240)
        connection.putrequest("POST", "/analyze")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"prompt": ')
        reply = connection.getresponse()
        assert reply.status == 408
        assert b"longer than a request may take" in reply.read()
        connection.close()


def test_a_slow_or_endless_head_is_closed(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose head does not end is closed, whether its bytes stop coming or never stop."""
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    with Served(endpoint) as served:
        with socket.create_connection(("127.0.0.1", served.port), 240) as silent:
            silent.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
            assert silent.recv(100) == b""
        monkeypatch.setattr(server, "HEAD_S", 240.0)
        with socket.create_connection(("127.0.0.1", served.port), 240) as endless:
            endless.sendall(b"GET /health HTTP/1.1\r\n")
            with pytest.raises(OSError, match=r"reset|pipe"):
                endless.sendall((b"X-Padding: " + b"x" * 1000 + b"\r\n") * 20_000)
        assert served.client.get("/health").status_code == 200


def test_what_is_not_http_gets_an_error_in_json(endpoint: Endpoint) -> None:
    """Broken requests get a 4xx with the JSON form of their route, and the service answers as before."""
    bad = (
        b"nonsense\r\n\r\n",
        b"GET /hea\x00lth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/\xff\x00 HTTP/1.1\r\n\r\n",
    )
    odd = ("/health%00", "/%ff", "/v1/%C3%28", "/analyze/../x", "/metrics?a=%ff&a=%00")
    with Served(endpoint) as served:
        for head in bad:
            with socket.create_connection(("127.0.0.1", served.port), 240) as connection:
                connection.sendall(head)
                reply = http.client.HTTPResponse(connection)
                reply.begin()
                found = json.loads(reply.read())
                assert (reply.status, reply.headers["Content-Type"]) == (400, "application/json")
                assert (found["error"].get("kind") or found["error"]["code"]) == "bad_request"
                assert found["request_id"] == reply.headers["X-Request-ID"]
        for path in odd:
            connected = http.client.HTTPConnection("127.0.0.1", served.port, timeout=240)
            connected.request("GET", path)
            assert connected.getresponse().status == (200 if path.startswith("/metrics") else 404), path
            connected.close()
        for method in ("TRACE", "DELETE", "OPTIONS", "BREW", "PROPFIND"):
            refused = served.client.request(method, "/v1/models")
            assert refused.status_code in (400, 405), method
            assert errors_of(refused)[1] in ("bad_request", "method_not_allowed")
        assert served.client.head("/v1/models").headers["Allow"] == "GET"
        assert served.client.get("/health").status_code == 200


def test_a_web_page_of_another_origin_may_not_use_the_service(endpoint: Endpoint) -> None:
    """Without keys, requests under another host name or of another origin are refused, unless named."""
    own = "https://intranet.example"
    with Served(endpoint, cors_origin=own) as served:
        for host in ("evil.example", "[::1"):
            assert errors_of(served.client.get("/v1/models", headers={"Host": host}))[1] == "bad_host"
        assert errors_of(served.client.get("/v1/models", headers={"Origin": "http://["}))[1] == "forbidden"
        reply = served.upload(headers={"Origin": "https://evil.example"})
        assert errors_of(reply)[:2] == (403, "forbidden")
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert len(endpoint.questions) == 0
        assert served.upload(headers={"Origin": own}).headers["Access-Control-Allow-Origin"] == own
        assert served.upload(picture(1), headers={"Origin": served.url}).status_code == 200
        asked = {"Origin": own, "Access-Control-Request-Method": "POST"}
        assert served.client.options("/analyze", headers=asked).status_code == 200
    with Served(endpoint) as served:
        reply = served.client.options("/analyze", headers=asked)
        assert "Access-Control-Allow-Origin" not in reply.headers


def test_no_url_is_fetched_unless_its_host_is_allowed(endpoint: Endpoint) -> None:
    """The URL of a picture is fetched from an allowed host only, and never after a redirect elsewhere."""

    def asked(url: str) -> dict[str, object]:
        parts = [{"type": "text", "text": "p"}, {"type": "image_url", "image_url": {"url": url}}]
        return {"model": "tiny-vision", "messages": [{"role": "user", "content": parts}]}

    with Served(endpoint) as served, Endpoint() as other:
        reply = served.client.post("/v1/chat/completions", json=asked(f"{other.url}/x.jpg"))
        assert errors_of(reply)[:2] == (403, "forbidden")
        reply = served.client.post("/v1/chat/completions", json=asked("file:///etc/passwd"))
        assert errors_of(reply)[:2] == (400, "bad_request")
        assert other.connections == 0


def test_metrics_may_have_a_port_of_their_own(endpoint: Endpoint) -> None:
    """The port of --metrics-port serves /metrics without a key, and no other route but /health."""
    with Served(endpoint, service_key=f"a:{KEY}", metrics_port=0) as served:
        own = f"http://127.0.0.1:{served.metrics_port}"
        assert "vlm_requests" in httpx.get(f"{own}/metrics").text
        assert httpx.get(f"{own}/health").status_code == 200
        reply = httpx.post(f"{own}/analyze/upload", files={"file": picture()})
        assert reply.status_code == 404
        assert len(endpoint.questions) == 0


def test_a_port_in_use_is_told() -> None:
    """A port that another service has, or --metrics-port with the number of --port, is refused by name."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} is in use"):
            server.bound_sockets(RunConfig.of_service(port=port).service)
    with pytest.raises(ConfigError, match=f"--metrics-port {port} is in use"):
        server.bound_sockets(RunConfig.of_service(port=port, metrics_port=port).service)


def test_a_trusted_proxy_is_an_address() -> None:
    """A name that would never match an address is refused, and a network is accepted."""
    with pytest.raises(ConfigError, match=r"--trusted-proxy proxy\.example is not an address"):
        RunConfig.of_service(trusted_proxy=("10.0.0.0/8", "proxy.example"))


def huge_png() -> bytes:
    """A PNG of a few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_a_wrong_field_is_named_in_plain_words(endpoint: Endpoint) -> None:
    """Each wrong field of JSON or of a form is named, with what it must be or what to type."""
    good = in_base64(picture())
    json_cases: list[tuple[str, object, str]] = [
        ("/analyze", {"image_base64": good, "max_tokens": "x"}, "max_tokens must be a whole number"),
        ("/analyze", {"image_base64": good, "temperature": 9}, "temperature must be at most 2"),
        (
            "/analyze",
            {"image_base64": good, "prompt": "x" * 40_000},
            "prompt has more than 32,000 characters",
        ),
        (
            "/analyze",
            {"image_base64": good, "promt": "x"},
            "promt is not a field of this request; the fields are",
        ),
        ("/analyze", {"image_base64": good, "model": "x"}, "name one of these: tiny-vision"),
        ("/analyze", {"image_base64": ""}, "image_base64 is empty"),
        ("/analyze/batch", {"images": []}, "images is empty"),
        ("/analyze/batch", {"images": [{"id": "a"}]}, "images.0.image_base64 is missing"),
        ("/analyze/batch", {"images": [7]}, "images.0 must be an object"),
    ]
    files = [("file", ("a.jpg", picture())), ("file", ("b.jpg", picture()))]
    with Served(endpoint) as served:
        for path, asked, told in json_cases:
            error = served.client.post(path, json=asked).json()["error"]
            assert error["message"].startswith(told) or error["message"].endswith(told), error
        no_file = served.client.post("/analyze/upload", files={"file": (None, "photo.jpg")})
        assert "curl -F file=@" in no_file.json()["error"]["message"]
        two = served.client.post("/analyze/upload", files=files)
        assert two.json()["error"]["message"].endswith("at most 1 file and 30 fields are allowed")


def test_bad_input_has_its_status_and_ends_nothing(endpoint: Endpoint) -> None:
    """Each kind of bad input has its own status and kind, and afterwards the service answers as before."""
    good = in_base64(picture())
    json_cases: list[tuple[object, int, str]] = [
        ({"image_base64": in_base64(huge_png())}, 413, "too_large"),
        ({"image_base64": "not base64!"}, 400, "bad_request"),
        ({"image_base64": "data:image/png,plain"}, 400, "bad_request"),
        ({"image_base64": ""}, 422, "bad_option"),
        ({"image_base64": in_base64(b"just text, no picture")}, 415, "not_an_image"),
        ({"image_base64": in_base64(picture()[:120])}, 422, "bad_image"),
        ({"prompt": "p"}, 422, "bad_option"),
        ({"prompt": 7, "image_base64": good}, 422, "bad_option"),
        ({"prompt": " ", "image_base64": good}, 422, "bad_option"),
        ({"prompt": "\ud800", "image_base64": good}, 400, "bad_request"),
        ({"prompt": "x" * 40_000, "image_base64": good}, 422, "bad_option"),
        ({"image_base64": good, "temperature": 9}, 422, "bad_option"),
        ({"image_base64": good, "max_tokens": 0}, 422, "bad_option"),
        ({"image_base64": good, "seed": 2**80}, 422, "bad_option"),
        ({"image_base64": good, "promt": "x"}, 422, "bad_option"),
        ({"image_base64": good, "schema": {"type": "no such type"}}, 422, "bad_option"),
        ({"image_base64": good, "schema": {"$ref": "http://evil.example/s"}}, 422, "bad_option"),
        ({"image_base64": good, "schema": "/etc/passwd"}, 422, "bad_option"),
        ({"image_base64": good, "schema": {"type": "object", "title": "x" * 200_000}}, 422, "bad_option"),
        ([1, 2], 400, "bad_request"),
    ]
    with Served(endpoint) as served:
        for asked, status, kind in json_cases:
            reply = served.client.post(
                "/analyze",
                content=json.dumps(asked),
                headers={"Content-Type": "application/json"},
            )
            assert errors_of(reply)[:2] == (status, kind), (str(asked)[:60], reply.text)
        raw = {"Content-Type": "application/json"}
        for content in (
            b"{",
            b"[" * 100_000,
            b'{"temperature": NaN}',
            b'{"schema": {"maximum": 1e400}}',
            b'{"seed": 1%s}' % (b"0" * 400),
            b"\xff\xfe",
            b"",
        ):
            assert errors_of(served.client.post("/analyze", content=content, headers=raw))[0] == 400
        many = b'{"prompt": [' + b"[]," * 60_000 + b"1]}"  # of 50 MB, it would stop all requests for seconds
        reply = served.client.post("/analyze", content=many, headers=raw)
        assert errors_of(reply) == (400, "bad_request", "the body has more than 50,000 values; send fewer")
        packed = served.client.post("/analyze", content=b"x", headers={**raw, "Content-Encoding": "gzip"})
        assert errors_of(packed)[:2] == (415, "unsupported_media_type")
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        for content in (b"--x\r\nbroken", b"", b"--y--"):
            assert served.client.post("/analyze/upload", content=content, headers=form).status_code in (
                400,
                422,
            )
        assert (
            served.client.post(
                "/analyze/upload", content=b"x", headers={"Content-Type": "multipart/form-data"}
            ).status_code
            == 400
        )
        assert served.client.post("/analyze/upload", data={"prompt": "x"}).status_code == 415
        assert served.client.post("/analyze/upload", files={"other": picture()}).status_code == 422
        reply = served.client.post("/analyze/upload", files={"file": (None, b"text")})
        assert "file is a text" in errors_of(reply)[2]
        two = [("file", picture(1)), ("file", picture(2))]
        assert served.client.post("/analyze/upload", files=two).status_code == 400
        name = "../../etc/\x1b[31mpasswd\r\nX-Evil: 1.jpg"
        reply = served.client.post("/analyze/upload", files={"file": (name, picture())})
        assert reply.status_code == 200
        assert not set("/\\\x1b\r\n").intersection(reply.json()["id"])
        odd = {"X-Request-ID": "a b\tc" * 100}
        assert served.client.get("/health", headers=odd).headers["X-Request-ID"] != odd["X-Request-ID"]
        assert (
            served.client.post("/analyze", json={"image_base64": good, "prompt": "x" * 10_000}).status_code
            == 200
        )
        assert served.client.get("/health").json() == {"status": "ok"}
        assert not [line for line in served.log if "a bug" in line]
