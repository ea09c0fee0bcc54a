"""The test server itself: what it shows on the socket is what its modes promise."""

import base64
import contextlib
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Model
from endpoint_modes import MODES, OUTAGES, SOCKETS
from PIL import Image

CHAT_PATHS = ("/api/chat", "/v1/chat/completions")
both_wires = pytest.mark.parametrize("path", CHAT_PATHS)


def jpeg(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "JPEG")
    return out.getvalue()


def question(path: str, picture: bytes | None = None, model: str = "tiny-vision") -> dict[str, Any]:
    """A question about one picture in the form that this wire wants."""
    text = base64.b64encode(jpeg() if picture is None else picture).decode()
    if path == "/api/chat":
        message: dict[str, Any] = {"role": "user", "content": "What is it?", "images": [text]}
    else:
        url = {"url": f"data:image/jpeg;base64,{text}"}
        message = {"role": "user", "content": [{"type": "image_url", "image_url": url}]}
    return {"model": model, "messages": [message], "stream": False}


def ask(
    endpoint: Endpoint, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers of one exchange; POST where there is a body."""
    line = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=20)
    with contextlib.closing(line):
        sent = None if body is None else json.dumps(body)
        given = {"Content-Type": "application/json", **(headers or {})}
        line.request("GET" if sent is None else "POST", path, sent, given)
        reply = line.getresponse()
        return reply.status, reply.read().decode(), reply.headers


def answer_in(path: str, text: str) -> tuple[str | None, str | None]:
    """The answer and its finish reason."""
    payload = json.loads(text)
    if path == "/api/chat":
        return payload["message"]["content"], payload.get("done_reason")
    choice = payload["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


@both_wires
def test_an_answer_describes_the_picture_that_arrived(endpoint: Endpoint, path: str) -> None:
    """A good answer holds hash, size and sides of the picture, so a test can tell what was sent."""
    status, text, _ = ask(endpoint, path, question(path))
    data = jpeg()
    expected = f"sha256={hashlib.sha256(data).hexdigest()} bytes={len(data)} size=64x48"
    assert (status, answer_in(path, text)) == (200, (expected, "stop"))
    request = endpoint.questions[0]
    assert (request.path, request.chat, request.pictures[0].data) == (path, 0, data)
    assert request.headers["content-type"] == "application/json"


def test_both_servers_tell_their_models(endpoint: Endpoint) -> None:
    """What preflight asks is answered as each server does."""
    assert json.loads(ask(endpoint, "/api/version")[1])["version"]
    names = [model["name"] for model in json.loads(ask(endpoint, "/api/tags")[1])["models"]]
    assert names == ["tiny-vision:latest", "tiny-text:latest"]
    shown = json.loads(ask(endpoint, "/api/show", {"model": "tiny-vision:latest"})[1])
    assert shown["capabilities"] == ["completion", "vision"]
    listed = json.loads(ask(endpoint, "/v1/models")[1])["data"]
    assert [(m["id"], m["owned_by"]) for m in listed] == [("tiny-vision", "vllm"), ("tiny-text", "vllm")]
    assert ask(endpoint, "/health")[0] == 200
    assert ask(endpoint, "/")[1] == "Ollama is running"
    assert ask(endpoint, "/props")[0] == 404
    assert endpoint.questions == []


@pytest.mark.parametrize(
    ("path", "change", "status", "told"),
    [
        ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/v1/chat/completions", {"model": "nope"}, 404, "The model `nope` does not exist."),
        ("/api/chat", {"model": "tiny-text"}, 400, "does not support multimodal requests"),
        ("/v1/chat/completions", {"model": "tiny-text"}, 400, "is not a multimodal model"),
        ("/api/chat", {"think": True}, 400, "does not support thinking"),
        ("/v1/chat/completions", {"messages": []}, 400, "empty conversation"),
    ],
)
def test_wrong_questions_are_refused(
    endpoint: Endpoint, path: str, change: dict[str, Any], status: int, told: str
) -> None:
    """An unknown model and a picture for a model that cannot see are refused in the server's words."""
    got, text, _ = ask(endpoint, path, question(path) | change)
    assert got == status
    assert told in text


def test_each_wire_wants_its_own_form_of_a_picture(endpoint: Endpoint) -> None:
    """A data: URL is wrong for Ollama, bare base64 for OpenAI, and bytes that are no picture for both."""
    ollama, openai = (question(path) for path in CHAT_PATHS)
    ollama["messages"][0]["images"] = ["data:image/jpeg;base64,QUJD"]
    assert "illegal base64 data at input byte 4" in ask(endpoint, CHAT_PATHS[0], ollama)[1]
    openai["messages"][0]["content"][0]["image_url"]["url"] = "QUJD"
    assert "The URL must be" in ask(endpoint, CHAT_PATHS[1], openai)[1]
    for path in CHAT_PATHS:
        status, text, _ = ask(endpoint, path, question(path, b"no picture"))
        assert (status, "Failed to load image" in text) == (400, True)


def test_no_messages_load_the_model_and_are_no_question(endpoint: Endpoint) -> None:
    """Ollama's warm-up is answered as it does, and moves no script on."""
    endpoint.script = ["500"]
    payload = json.loads(ask(endpoint, "/api/chat", {"model": "tiny-vision", "messages": []})[1])
    assert (payload["done_reason"], endpoint.questions) == ("load", [])


def test_ollama_streams_unless_told_not_to(endpoint: Endpoint) -> None:
    """A client that forgets stream=false gets lines instead of an object."""
    body = question("/api/chat")
    del body["stream"]
    _, text, headers = ask(endpoint, "/api/chat", body)
    assert headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 2


REPLIED = (
    ("html200", 200, "<title>Sign in</title>"),
    ("html502", 502, "<html>"),
    ("empty500", 500, ""),
    ("403-empty", 403, ""),
    ("413", 413, "413 Request Entity Too Large"),
    ("422", 422, "field required"),
    ("499", 499, "request canceled"),
    ("503-loading", 503, "Loading model"),
    ("runner_stopped", 500, "unexpectedly stopped"),
    ("nested_json_error", 400, r"\"message\": \"Failed to load"),
    ("old_vllm_error_shape", 404, '"object": "error"'),
    ("context", 400, "context"),
    ("context:8", 400, "cannot be greater than max_model_len"),
    ("error_in_200", 200, '"error"'),
)


@both_wires
@pytest.mark.parametrize(("mode", "status", "told"), REPLIED)
def test_whole_replies(endpoint: Endpoint, path: str, mode: str, status: int, told: str) -> None:
    """A mode that is a reply comes with its status and words, once, as the script says."""
    endpoint.script = [mode]
    got, text, _ = ask(endpoint, path, question(path))
    assert (got, told in text if told else text == "") == (status, True)
    assert ask(endpoint, path, question(path))[0] == 200


@both_wires
@pytest.mark.parametrize(
    ("mode", "reason", "empty"),
    [
        ("length", "length", False),
        ("empty", "stop", True),
        ("loop", "stop", False),
        ("finish_abort", "abort", False),
        ("content_filter", "content_filter", True),
    ],
)
def test_bad_answers(endpoint: Endpoint, path: str, mode: str, reason: str, empty: bool) -> None:
    """A bad answer has status 200 and shows in its finish reason or text only."""
    endpoint.script = [mode]
    status, text, _ = ask(endpoint, path, question(path))
    answer, got = answer_in(path, text)
    assert (status, got, answer == "") == (200, reason, empty)


def test_done_false_has_no_reason(endpoint: Endpoint) -> None:
    """Ollama's broken-off answer says done: false and gives no reason."""
    endpoint.script = ["done_false"]
    payload = json.loads(ask(endpoint, "/api/chat", question("/api/chat"))[1])
    assert (payload["done"], "done_reason" in payload) == (False, False)


@pytest.mark.parametrize("argument", ["7", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_is_sent_as_it_stands(endpoint: Endpoint, argument: str) -> None:
    """The argument of 429 is its Retry-After, sense or nonsense."""
    endpoint.script = [f"429:{argument}"]
    status, _, headers = ask(endpoint, "/api/chat", question("/api/chat"))
    assert (status, headers["Retry-After"]) == (429, argument)


def raw(endpoint: Endpoint, path: str) -> socket.socket:
    """Send a question by hand; the open socket, of which nothing has been read."""
    body = json.dumps(question(path)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    line = socket.create_connection(("127.0.0.1", endpoint.port), timeout=20)
    line.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return line


def read_all(line: socket.socket) -> bytes:
    return b"".join(iter(lambda: line.recv(65536), b""))


@both_wires
def test_sockets_misbehave(endpoint: Endpoint, path: str) -> None:
    """A reset, a body that is too short and a close without a word look so on the socket."""
    endpoint.script = ["rst", "shortbody", "closenoresp"]
    line = raw(endpoint, path)
    with line, pytest.raises(ConnectionResetError):
        read_all(line)
    line = raw(endpoint, path)
    with line:
        head, _, body = read_all(line).partition(b"\r\n\r\n")
    assert (b"Content-Length: 1000" in head, body) == (True, b'{"a":')
    line = raw(endpoint, path)
    with line:
        assert read_all(line) == b""


def test_hang_says_nothing_and_trickle_never_ends(endpoint: Endpoint) -> None:
    """A hanging request sends no byte, a trickling one a byte at a time; both notice that the client left."""
    endpoint.script = ["hang", "trickle:0.001"]
    silent = raw(endpoint, "/api/chat")
    with silent:
        slow = raw(endpoint, "/api/chat")
        with slow:
            got = b""
            while not re.search(rb"\r\n\r\n\{ {20}", got):
                got += slow.recv(100)
        silent.settimeout(0.01)
        with pytest.raises(TimeoutError):
            silent.recv(1)


@both_wires
def test_every_mode_can_be_shown(path: str) -> None:
    """No mode breaks the server itself, on either wire."""
    quiet = MODES - OUTAGES - {"hang", "trickle", "slow", "503_after_slow", "cold"}
    with Endpoint(script=sorted(quiet)) as endpoint:
        for mode in sorted(quiet):
            broken = mode in SOCKETS
            with contextlib.suppress(http.client.HTTPException, OSError):
                ask(endpoint, path, question(path))
                assert not broken, mode


def test_a_script_can_go_by_the_picture() -> None:
    """A poison picture fails each time, whatever comes before and after it."""
    poison = jpeg("blue")
    with Endpoint(script={hashlib.sha256(poison).hexdigest(): "runner_stopped"}) as endpoint:
        told = [
            ask(endpoint, "/api/chat", question("/api/chat", picture))[0]
            for picture in (poison, jpeg(), poison, jpeg("green"))
        ]
    assert told == [500, 200, 500, 200]


def test_a_wrong_mode_is_told_to_the_test() -> None:
    """A misspelt mode fails the test that wrote it, instead of hiding in the server's thread."""
    with pytest.raises(ValueError, match="no mode 'okay'"), Endpoint(script=["okay"]) as endpoint:  # noqa: SIM117
        with contextlib.suppress(http.client.HTTPException, OSError):
            ask(endpoint, "/api/chat", question("/api/chat"))


def test_down_refuses_and_up_answers_on_the_same_port(endpoint: Endpoint) -> None:
    """While it is down connections are refused and open ones are reset; afterwards all is as before."""
    endpoint.script = ["hang"]
    line = raw(endpoint, "/api/chat")
    endpoint.until(lambda: bool(endpoint.questions))
    endpoint.down()
    with line, pytest.raises(ConnectionResetError):
        read_all(line)
    with pytest.raises(ConnectionRefusedError):
        ask(endpoint, "/health")
    port = endpoint.port
    endpoint.up()
    assert (endpoint.port, ask(endpoint, "/health")[0]) == (port, 200)


def test_a_question_can_take_the_endpoint_down() -> None:
    """The mode down kills the neighbours of a question too, as a dying engine does."""
    with Endpoint(script=["hang", "down"]) as endpoint:
        neighbour = raw(endpoint, "/api/chat")
        endpoint.until(lambda: bool(endpoint.questions))
        with neighbour:
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                ask(endpoint, "/api/chat", question("/api/chat"))
            with pytest.raises(ConnectionResetError):
                read_all(neighbour)
        with pytest.raises(ConnectionRefusedError):
            ask(endpoint, "/health")


def test_slots_let_others_wait() -> None:
    """With one slot a second question waits until the first is done."""
    with Endpoint(slots=1, script=["hang", "ok"]) as endpoint:
        first = raw(endpoint, "/api/chat")
        endpoint.until(lambda: endpoint.open_questions == 1)
        second = raw(endpoint, "/api/chat")
        with second:
            endpoint.until(lambda: endpoint.open_questions == 2)
            second.settimeout(0.01)
            with pytest.raises(TimeoutError):
                second.recv(1)
            first.close()
            second.settimeout(20)
            assert second.recv(12) == b"HTTP/1.1 200"
        assert (endpoint.most_open_questions, endpoint.abandoned) == (2, 1)


def test_a_key_is_wanted_where_one_is_set() -> None:
    """Without the key everything but the health check is refused."""
    with Endpoint(api_key="secret") as endpoint:
        assert ask(endpoint, "/v1/models")[0] == 401
        assert ask(endpoint, "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
        assert ask(endpoint, "/health")[0] == 200


def test_other_servers_can_be_played() -> None:
    """One wire can be left out, and llama.cpp's server, which ignores the model's name, played."""
    with Endpoint(speaks=["openai"], owned_by="llamacpp", props={"total_slots": 2}) as endpoint:
        assert ask(endpoint, "/api/version")[0] == 404
        assert json.loads(ask(endpoint, "/props")[1]) == {"total_slots": 2}
        assert ask(endpoint, CHAT_PATHS[1], question(CHAT_PATHS[1], model="nope"))[0] == 200
        refused = ask(endpoint, CHAT_PATHS[1], question(CHAT_PATHS[1], model="tiny-text"))
        assert (refused[0], "image input is not supported" in refused[1]) == (500, True)


def test_thinking_models_think_unless_told_not_to() -> None:
    """A model with the capability thinks by default, and shows it."""
    with Endpoint(models={"m": Model(thinking=True)}) as endpoint:
        body = question("/api/chat", model="m")
        assert "thinking" in json.loads(ask(endpoint, "/api/chat", body)[1])["message"]
        assert "thinking" not in json.loads(ask(endpoint, "/api/chat", body | {"think": False})[1])["message"]


def test_its_thread_ends_with_it() -> None:
    """Leaving the block ends the thread, even with a request hanging."""
    before = threading.active_count()
    with Endpoint(script=["hang"]) as endpoint:
        line = raw(endpoint, "/api/chat")
        endpoint.until(lambda: bool(endpoint.questions))
    with line, pytest.raises(ConnectionResetError):
        read_all(line)
    assert threading.active_count() == before


def test_it_runs_by_hand() -> None:
    """As a command it prints its address and serves until it is interrupted."""
    command = [sys.executable, str(Path(__file__).parent / "endpoint.py"), "--mode", "429:3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(line):
            line.request("POST", "/api/chat", json.dumps(question("/api/chat")))
            assert line.getresponse().headers["Retry-After"] == "3"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
