"""Every entry of the catalogue behaves on the socket as its name says, and unlike all other entries."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from endpoint import Endpoint
from endpoint.catalogue import CATALOGUE
from endpoint.client import ask, both_wires, jpeg, question, raw, read_all, refuses, says_nothing
from endpoint.test_modes import REPLIED, told

POISON = jpeg("blue")
ENGINE_DEAD = b"EngineCore encountered an issue"


def played(name: str, **filled: object) -> Endpoint:
    """The endpoint of this entry, with its placeholders filled in."""
    how = CATALOGUE[name]
    for word, value in filled.items():
        assert word in how
        how = how.replace(word, str(value))
    if not how.startswith("Endpoint("):
        return Endpoint(script=[how])
    made: Endpoint = eval(how, {"Endpoint": Endpoint, "SHA": hashlib.sha256(POISON).hexdigest()})
    return made


def statuses(endpoint: Endpoint, path: str, *pictures: bytes) -> list[int]:
    return [ask(endpoint, path, question(path, picture))[0] for picture in pictures]


def whole(data: bytes) -> tuple[bytes, bytes]:
    """Status line and body of a reply."""
    head, _, body = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], body


def back_again(endpoint: Endpoint, path: str) -> None:
    """Assert that the endpoint is down, and that it answers again after `up()`."""
    assert refuses(endpoint)
    endpoint.delay = 0
    endpoint.up()
    assert statuses(endpoint, path, jpeg()) == [200]


def shows_ok(path: str) -> None:
    with played("ok") as endpoint, raw(endpoint, path) as line:
        assert re.search(rb"^HTTP/1.1 200 .*sha256=", line.recv(65536), re.DOTALL)
        assert says_nothing(line)


def shows_ok_stream(path: str) -> None:
    with played("ok_stream") as endpoint, raw(endpoint, path) as line:
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += line.recv(65536)
    assert (b"chunked" in got, b"sha256=" in got, b"size=64x48" in got) == (True, True, True)


def shows_ok_slow(path: str) -> None:
    with played("ok_slow(n)", SECONDS=9999) as endpoint, raw(endpoint, path) as line:
        endpoint.until(lambda: endpoint.open_questions == 1)
        assert says_nothing(line)
        assert statuses(endpoint, path, jpeg()) == [200], "other requests need not wait"
    with played("ok_slow(n)", SECONDS=0.01) as endpoint:
        assert "sha256=" in ask(endpoint, path, question(path))[1]


def shows_503_after_slow(path: str) -> None:
    with played("503_after_slow", SECONDS=9999) as endpoint, raw(endpoint, path) as line:
        endpoint.until(lambda: endpoint.open_questions == 1)
        assert says_nothing(line)
    with played("503_after_slow", SECONDS=0.01) as endpoint:
        assert statuses(endpoint, path, jpeg(), jpeg()) == [503, 200]


def shows_cold(path: str) -> None:
    with played("cold(n)", SECONDS=9999) as endpoint, raw(endpoint, path) as first:
        endpoint.until(lambda: endpoint.open_questions == 1)
        with raw(endpoint, path) as second:
            endpoint.until(lambda: endpoint.open_questions == 2)
            assert (says_nothing(first), says_nothing(second)) == (True, True)
        assert ask(endpoint, "/v1/models")[0] == 200
    with played("cold(n)", SECONDS=0.01) as endpoint:
        endpoint.script = ["cold:0.01"] * 3
        bodies = [ask(endpoint, path, question(path))[1] for _ in range(2)]
        endpoint.down()  # a new server has to load the model again
        endpoint.up()
        bodies.append(ask(endpoint, path, question(path))[1])
    if path == "/api/chat":
        loads = [int(re.findall(r'"load_duration": (\d+)', body)[0]) for body in bodies]
        assert loads == [pytest.approx(1e7, rel=0.01), 1000, pytest.approx(1e7, rel=0.01)]


def shows_hang(path: str) -> None:
    with played("hang") as endpoint:
        with raw(endpoint, path) as line:
            endpoint.until(lambda: endpoint.open_questions == 1)
            assert says_nothing(line)
            assert statuses(endpoint, path, jpeg()) == [200], "other requests need not wait"
        endpoint.until(lambda: endpoint.abandoned == 1)


def shows_trickle(path: str) -> None:
    with played("trickle", SECONDS=0.001) as endpoint, raw(endpoint, path) as line:
        got = b""
        while not re.search(rb"\r\n\r\n\{ {20}", got):
            got += line.recv(100)


def shows_rst(path: str) -> None:
    with played("rst") as endpoint, raw(endpoint, path) as line, pytest.raises(ConnectionResetError):
        read_all(line)


def shows_shortbody(path: str) -> None:
    with played("shortbody") as endpoint, raw(endpoint, path) as line:
        head, _, body = read_all(line).partition(b"\r\n\r\n")
    assert (b"Content-Length: 1000" in head, body) == (True, b'{"a":')


def shows_closenoresp(path: str) -> None:
    with played("closenoresp") as endpoint, raw(endpoint, path) as line:
        assert read_all(line) == b""


def shows_idleclose(path: str) -> None:
    with played("idleclose(s)", SECONDS=0.01) as endpoint, raw(endpoint, path) as line:
        got = read_all(line)
    length = re.search(rb"Content-Length: (\d+)", got)
    assert length is not None
    assert (b"sha256=" in got, len(whole(got)[1])) == (True, int(length[1])), "a good answer, then the end"
    with played("idleclose(s)", SECONDS=9999) as endpoint, raw(endpoint, path) as line:
        assert b"sha256=" in line.recv(65536)
        assert says_nothing(line)


def shows_down(path: str) -> None:
    with played("down(seconds)", SECONDS=9999) as endpoint:
        with raw(endpoint, path) as line, pytest.raises(ConnectionResetError):
            read_all(line)
        assert endpoint.crashes == 0
        back_again(endpoint, path)
    with played("down(seconds)", SECONDS=0.01) as endpoint:
        with raw(endpoint, path) as line, pytest.raises(ConnectionResetError):
            read_all(line)
        endpoint.until(lambda: not refuses(endpoint))


def shows_crash(path: str) -> None:
    with played("crash_neighbours(hash)", SECONDS=9999) as endpoint:
        endpoint.delay = 9999
        with raw(endpoint, path) as neighbour:
            endpoint.until(lambda: endpoint.open_questions == 1)
            with raw(endpoint, path, POISON) as poison:
                for line in (poison, neighbour):
                    with pytest.raises(ConnectionResetError):
                        read_all(line)
        assert endpoint.crashes == 1
        back_again(endpoint, path)


def shows_crash_with_500(path: str) -> None:
    with played("crash_neighbours(hash) with 500", SECONDS=9999) as endpoint:
        idle = raw(endpoint, path)
        assert idle.recv(12) == b"HTTP/1.1 200"
        endpoint.delay = 9999
        with raw(endpoint, path) as neighbour:
            endpoint.until(lambda: endpoint.open_questions == 1)
            with raw(endpoint, path, POISON) as poison:
                for line in (poison, neighbour):
                    status, body = whole(read_all(line))
                    assert (status, ENGINE_DEAD in body) == (b"HTTP/1.1 500 Internal Server Error", True)
        with idle, pytest.raises(ConnectionResetError):
            assert ENGINE_DEAD not in read_all(idle)
        assert endpoint.crashes == 1
        back_again(endpoint, path)
        assert statuses(endpoint, path, POISON) == [500]
        assert endpoint.crashes == 2


def shows_sigterm_hang(path: str) -> None:
    with played("sigterm_hang", SECONDS=0.01) as endpoint, raw(endpoint, path) as line:
        endpoint.until(lambda: endpoint.open_questions == 1 and not refuses(endpoint))
        assert says_nothing(line)
    script = ["hang", CATALOGUE["sigterm_hang"].replace("SECONDS", "9999"), "ok"]
    with Endpoint(slots=1, script=script) as endpoint:
        lines = []
        for n in (1, 2, 3):
            lines.append(raw(endpoint, path))
            endpoint.until(lambda n=n: endpoint.open_questions == n)  # type: ignore[misc]
        first, dying, queued = lines
        first.close()
        endpoint.until(lambda: refuses(endpoint))
        assert says_nothing(dying)
        dying.close()
        endpoint.until(lambda: endpoint.abandoned == 2)
        with queued:
            assert says_nothing(queued), "it has a slot, but gets no answer"
            back_again(endpoint, path)
            assert says_nothing(queued)


def shows_runner_stopped_once(path: str) -> None:
    with played("ollama_runner_stopped(once)") as endpoint:
        assert statuses(endpoint, path, POISON, POISON) == [500, 200]


def shows_runner_stopped_always(path: str) -> None:
    with played("ollama_runner_stopped(always)") as endpoint:
        assert statuses(endpoint, path, jpeg(), POISON, jpeg()) == [500, 500, 500]


def shows_runner_stopped_by_hash(path: str) -> None:
    with played("ollama_runner_stopped(by-hash)") as endpoint:
        assert statuses(endpoint, path, POISON, jpeg(), POISON) == [500, 200, 500]


def shows_serial_queue(path: str) -> None:
    with played("serial_queue") as endpoint:
        endpoint.script = ["slow:9999"]
        with raw(endpoint, path) as first:
            endpoint.until(lambda: endpoint.open_questions == 1)
            with raw(endpoint, path) as second:
                endpoint.until(lambda: endpoint.open_questions == 2)
                assert says_nothing(second)
                first.close()
                assert second.recv(12) == b"HTTP/1.1 200"


def shows_chunk_not_found(path: str) -> None:
    with played("chunk_not_found(k)", COUNT=3) as endpoint:
        assert isinstance(endpoint.script, list)
        endpoint.script += ["408", "408", "ok"]
        assert statuses(endpoint, path, POISON, *[jpeg()] * 3) == [500, 500, 500, 200]


SHOWN: dict[str, Callable[[str], Any]] = {
    "ok": shows_ok,
    "ok_stream": shows_ok_stream,
    "ok_slow(n)": shows_ok_slow,
    "503_after_slow": shows_503_after_slow,
    "cold(n)": shows_cold,
    "hang": shows_hang,
    "trickle": shows_trickle,
    "rst": shows_rst,
    "shortbody": shows_shortbody,
    "closenoresp": shows_closenoresp,
    "idleclose(s)": shows_idleclose,
    "down(seconds)": shows_down,
    "crash_neighbours(hash)": shows_crash,
    "crash_neighbours(hash) with 500": shows_crash_with_500,
    "sigterm_hang": shows_sigterm_hang,
    "ollama_runner_stopped(once)": shows_runner_stopped_once,
    "ollama_runner_stopped(always)": shows_runner_stopped_always,
    "ollama_runner_stopped(by-hash)": shows_runner_stopped_by_hash,
    "serial_queue": shows_serial_queue,
    "chunk_not_found(k)": shows_chunk_not_found,
}
"""The entries that one reply does not show."""


@both_wires
@pytest.mark.parametrize("name", SHOWN)
def test_each_fault_beyond_one_reply_shows(path: str, name: str) -> None:
    """Each fault of the connection, of time or of the whole endpoint behaves as its name says."""
    SHOWN[name](path)


@both_wires
def test_each_fault_of_one_reply_is_unique(path: str) -> None:
    """Each other entry sends one reply with the words of its mode, and no two entries send the same one."""
    seen: dict[bytes, str] = {}
    for name in CATALOGUE.keys() - SHOWN.keys():
        with played(name) as endpoint, raw(endpoint, path) as line:
            got = line.recv(1_000_000)
        status, words = REPLIED.get(CATALOGUE[name]) or REPLIED[CATALOGUE[name].partition(":")[0]]
        assert got.startswith(b"HTTP/1.1 %d " % status), name
        assert told(path, words).encode() in got, name
        assert seen.setdefault(got, name) == name
