"""The test endpoint itself: its normal replies, its outages and its settings."""

import contextlib
import hashlib
import http.client
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from endpoint import Endpoint, Model
from endpoint.client import (
    CHAT_PATHS,
    answer_in,
    ask,
    both_wires,
    jpeg,
    question,
    raw,
    read_all,
)
from endpoint.wires import BLIND


@both_wires
def test_an_answer_describes_the_picture_that_arrived(endpoint: Endpoint, path: str) -> None:
    """A good answer holds hash, size and sides of the picture, so that a test can see what was sent."""
    status, text, _ = ask(endpoint, path, question(path))
    data = jpeg()
    expected = f"sha256={hashlib.sha256(data).hexdigest()} bytes={len(data)} size=64x48"
    assert (status, answer_in(path, text)) == (200, (expected, "stop"))
    request = endpoint.questions[0]
    assert (request.path, request.chat, request.pictures[0].data) == (path, 0, data)
    assert request.headers["content-type"] == "application/json"


def test_both_servers_answer_preflight(endpoint: Endpoint) -> None:
    """Each request of preflight gets the reply of the server that has its path."""
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
    """The server refuses an unknown model, an ability that the model lacks, and an empty conversation."""
    got, text, _ = ask(endpoint, path, question(path) | change)
    assert got == status
    assert told in text


def test_each_wire_accepts_only_its_form_of_a_picture(endpoint: Endpoint) -> None:
    """Ollama refuses a data: URL, OpenAI refuses bare base64, and both refuse bytes that are no picture."""
    ollama, openai = (question(path) for path in CHAT_PATHS)
    ollama["messages"][0]["images"] = ["data:image/jpeg;base64,QUJD"]
    assert "illegal base64 data at input byte 4" in ask(endpoint, CHAT_PATHS[0], ollama)[1]
    openai["messages"][0]["content"][0]["image_url"]["url"] = "QUJD"
    assert "The URL must be" in ask(endpoint, CHAT_PATHS[1], openai)[1]
    for path in CHAT_PATHS:
        status, text, _ = ask(endpoint, path, question(path, b"no picture"))
        assert (status, "Failed to load image" in text) == (400, True)


def test_a_request_without_messages_loads_the_model(endpoint: Endpoint) -> None:
    """Ollama's warm-up request gets Ollama's reply, and uses no mode of the script."""
    endpoint.script = ["500"]
    payload = json.loads(ask(endpoint, "/api/chat", {"model": "tiny-vision", "messages": []})[1])
    assert (payload["done_reason"], endpoint.questions) == ("load", [])


def test_ollama_streams_by_default(endpoint: Endpoint) -> None:
    """A client that does not send stream=false gets lines instead of an object."""
    body = question("/api/chat")
    del body["stream"]
    _, text, headers = ask(endpoint, "/api/chat", body)
    assert headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 2


def test_a_script_can_depend_on_the_picture() -> None:
    """A picture in the script fails each time, and other pictures before and after it succeed."""
    poison = jpeg("blue")
    with Endpoint(script={hashlib.sha256(poison).hexdigest(): "runner_stopped"}) as endpoint:
        told = [
            ask(endpoint, "/api/chat", question("/api/chat", picture))[0]
            for picture in (poison, jpeg(), poison, jpeg("green"))
        ]
    assert told == [500, 200, 500, 200]


def test_a_wrong_mode_fails_the_test() -> None:
    """A misspelt mode in the server's thread fails the test that uses it."""
    with pytest.raises(ValueError, match="no mode 'okay'"), Endpoint(script=["okay"]) as endpoint:  # noqa: SIM117
        with contextlib.suppress(http.client.HTTPException, OSError):
            ask(endpoint, "/api/chat", question("/api/chat"))


def test_down_refuses_and_up_answers_on_the_same_port(endpoint: Endpoint) -> None:
    """While it is down, open connections are reset and new ones refused; then it answers at the same port."""
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
    """The mode down also resets all other open requests, as a dying engine does."""
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


def test_questions_beyond_the_slots_wait() -> None:
    """With one slot, a second question waits until the first one ends."""
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
            second.settimeout(240)
            assert second.recv(12) == b"HTTP/1.1 200"
        assert (endpoint.most_open_questions, endpoint.abandoned) == (2, 1)


def test_a_key_is_required_if_one_is_set() -> None:
    """A request without the key is refused, except for the health check."""
    with Endpoint(api_key="secret") as endpoint:
        assert ask(endpoint, "/v1/models")[0] == 401
        assert ask(endpoint, "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
        assert ask(endpoint, "/health")[0] == 200


def test_other_servers_can_be_imitated() -> None:
    """The endpoint can omit a wire, and imitate llama.cpp's server, which ignores the model's name."""
    with Endpoint(speaks=["openai"], owned_by="llamacpp", props={"total_slots": 2}) as endpoint:
        assert ask(endpoint, "/api/version")[0] == 404
        assert json.loads(ask(endpoint, "/props")[1]) == {"total_slots": 2}
        assert ask(endpoint, CHAT_PATHS[1], question(CHAT_PATHS[1], model="nope"))[0] == 200
        refused = ask(endpoint, CHAT_PATHS[1], question(CHAT_PATHS[1], model="tiny-text"))
        assert (refused[0], "image input is not supported" in refused[1]) == (500, True)


def test_thinking_models_think_by_default() -> None:
    """A model that can think returns its thoughts, unless the request has think: false."""
    with Endpoint(models={"m": Model(thinking=True)}) as endpoint:
        body = question("/api/chat", model="m")
        assert "thinking" in json.loads(ask(endpoint, "/api/chat", body)[1])["message"]
        assert "thinking" not in json.loads(ask(endpoint, "/api/chat", body | {"think": False})[1])["message"]


def test_the_thread_ends_with_the_block() -> None:
    """The thread ends when the block ends, even if a request hangs."""
    before = threading.active_count()
    with Endpoint(script=["hang"]) as endpoint:
        line = raw(endpoint, "/api/chat")
        endpoint.until(lambda: bool(endpoint.questions))
    with line, pytest.raises(ConnectionResetError):
        read_all(line)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("flags", "status", "told"),
    [
        (["--mode", "429:3"], 429, "Too many requests"),
        (["--slots", "1", "--delay", "0.001", "--blind"], 200, BLIND),
        (["--api-key", "secret"], 401, "Unauthorized"),
    ],
)
def test_it_runs_as_a_command(flags: list[str], status: int, told: str) -> None:
    """As a command it prints its address, and serves with its flags until SIGINT."""
    command = [sys.executable, "-m", "endpoint", *flags]
    tests = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
        with contextlib.closing(line):
            line.request("POST", "/api/chat", json.dumps(question("/api/chat")))
            reply = line.getresponse()
            assert (reply.status, told in reply.read().decode()) == (status, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=240) == 0
