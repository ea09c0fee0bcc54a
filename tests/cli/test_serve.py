"""`vlmbatch serve` as a process: where it listens, how it stops, and how it refuses to start."""

import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from command import run
from endpoint import Endpoint
from serving import command_serving, picture
from waiting import until


@pytest.mark.slow
def test_a_signal_finishes_the_requests_in_work(endpoint: Endpoint, tmp_path: Path) -> None:
    """After SIGTERM the service accepts no request, answers what is in progress, and ends with 143."""
    released = threading.Event()
    endpoint.hold_until(released.is_set)
    with command_serving(endpoint, folder=tmp_path) as (url, process, log):
        replies: list[httpx.Response] = []
        files = {"file": ("a.jpg", picture())}
        asking = threading.Thread(
            target=lambda: replies.append(httpx.post(f"{url}/analyze/upload", files=files, timeout=240))
        )
        asking.start()
        until(lambda: endpoint.open_questions == 1)
        process.send_signal(signal.SIGTERM)
        until(lambda: _is_closed(url))
        released.set()
        assert process.wait(240) == 128 + signal.SIGTERM
        asking.join(240)
        assert replies[0].status_code == 200
        assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_what_is_not_finished_in_time_is_told(endpoint: Endpoint, tmp_path: Path) -> None:
    """A request that is still in progress after --drain gets 503, and the service ends."""
    endpoint.script = lambda request: "held"
    with command_serving(endpoint, "--drain", "0.2", folder=tmp_path) as (url, process, _):
        files = {"file": ("a.jpg", picture())}
        replies: list[httpx.Response] = []
        asking = threading.Thread(
            target=lambda: replies.append(httpx.post(f"{url}/analyze/upload", files=files, timeout=240))
        )
        asking.start()
        until(lambda: endpoint.open_questions == 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 128 + signal.SIGINT
        asking.join(240)
        assert (replies[0].status_code, replies[0].json()["error"]["kind"]) == (503, "stopping")


def _is_closed(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError:
        return True
    return False


def test_the_service_refuses_to_start_with_a_plain_message(endpoint: Endpoint, tmp_path: Path) -> None:
    """Each wrong option ends the command with 2 and one line, which says what to type."""
    at = ("--backend", "ollama", "--base-url", endpoint.url, "--model", "tiny-vision")
    cases = {
        ("--port", str(endpoint.port)): "is in use",
        ("--host", "0.0.0.0"): "--make-key",
        ("--port", "0", "--model", "nope"): "has no model 'nope'",
        ("--port", "0", "--rate", "often"): "--rate",
        ("--port", "0", "--keys-file", str(tmp_path / "none.toml")): "none.toml",
        ("--port", "0", "--service-key", "short:abc"): "--service-key",
        ("--host", "192.0.2.1", "--service-key", "a:0123456789abcdef"): "not an address of this machine",
    }
    for words, told in cases.items():
        done = run("serve", *at, *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert "0123456789abcdef" not in done.stderr


def test_a_new_key_is_printed_with_its_entry(tmp_path: Path) -> None:
    """--make-key prints an entry, which accepts the API key on standard error and does not have it itself."""
    done = run("serve", "--make-key", "alice")
    assert done.returncode == 0
    key = done.stderr.split()[-1]
    assert key.startswith("vb_")
    assert key not in done.stdout
    from vlmbatch.service.keys import KeyRing

    file = tmp_path / "keys.toml"
    file.write_text(done.stdout)
    found = KeyRing(file, (), tell=print).find(key)
    assert found is not None
    assert found.name == "alice"
    assert run("serve", "--make-key", "a b").returncode == 2
