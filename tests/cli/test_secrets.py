"""Keys, passwords and queries of URLs stay where they were typed, and nothing foreign steers a terminal."""

import json
import subprocess
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import pytest
from command import COMMAND, environment, run
from endpoint import Endpoint

from vlmbatch.backends.http.auth import Access

Photos = Callable[..., Path]
USER, PASSWORD, QUERY, KEY = "user-s3cret", "pa/s3cret", "query-s3cret", "key&s3cret"
SECRETS = (USER, PASSWORD, quote(PASSWORD, safe=""), QUERY, KEY)
STEERING = "\x1b[31m\x1b]0;title\x07"


@contextmanager
def telltale(status: int) -> Iterator[str]:
    """The address of a gateway that repeats everything it was sent in its error, and adds colour.

    It writes slashes and ampersands as PHP and Go do in JSON. Status 0 is no HTTP at all.
    """

    class Gateway(BaseHTTPRequestHandler):
        def reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard = self.headers.get("Authorization", "")
            login = b64decode(heard.removeprefix("Basic ")) if heard.startswith("Basic") else b""
            told = f"{STEERING} {heard} {login.decode()} for {self.path}"
            body = (
                json.dumps({"error": {"message": told}}).replace("/", "\\/").replace("&", "\\u0026").encode()
            )
            if not status:
                self.wfile.write(f"hello {self.path}\r\n\r\n".encode())
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = reply  # the names that http.server calls

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def everything(done_out: str, done_err: str) -> str:
    """All that a run left: its streams and the files beside the photos."""
    files = (path.read_text() for path in Path().iterdir() if path.is_file())
    return "\n".join(chain((done_out, done_err), files))


@pytest.mark.parametrize("backend", ["ollama", "vllm", "auto"])
@pytest.mark.parametrize(
    # words are masked before a log hears them, and both ways to give a key lead to the same masking: each
    # status meets one log and one of the ways, and every log and way both an exit with 2 and one with 4
    ("flag", "status", "typed"),
    [
        ("-v", 400, True),
        ("--log-json", 401, False),
        ("-v", 404, False),
        ("--log-json", 500, True),
        ("-v", 500, False),
        ("--log-json", 0, True),
        ("--dry-run", 500, True),
        ("--dry-run", 500, False),
    ],
)
def test_what_a_gateway_repeats_is_masked(
    photos: Photos, backend: str, flag: str, status: int, typed: bool
) -> None:
    """On no stream and in no file: not in records, log, summary, metrics, lock or message."""
    photos(2)
    reports = ("--summary", "s.json", "--metrics-file", "m.prom", "-o", "o.jsonl")
    options = ("--retries", "0", "--give-up-after", "0", "--no-canary", "-m", "x", flag, *reports)
    with telltale(status) as place:
        bare = f"http://{place}/v1?token={QUERY}"
        if typed:
            url = bare.replace("//", f"//{USER}:{quote(PASSWORD, safe='')}@")
            done = run("run", "photos", "-b", backend, "--base-url", url, *options, OPENAI_API_KEY=KEY)
        else:
            places = {"OLLAMA_HOST": bare, "OPENAI_BASE_URL": bare, "VLMBATCH_API_KEY": KEY}
            done = run("run", "photos", "-b", backend, *options, **places)
    left = everything(done.stdout, done.stderr)
    assert not [secret for secret in SECRETS if secret in left]
    assert not [sign for sign in ("\x1b", "\x07") if sign in done.stderr]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("backend", "path"), [("openai", "/v1"), ("ollama", "")])
def test_a_query_in_the_base_url_goes_with_every_request(
    photos: Photos, endpoint: Endpoint, backend: str, path: str
) -> None:
    """Gateways want a version or a token there; it is sent, and stands in no record."""
    photos(1)
    url = f"{endpoint.url}{path}?api-version=2026-11-01&token={QUERY}"
    done = run("run", "photos", "-b", backend, "-m", "tiny-vision", "--base-url", url)
    assert done.returncode == 0, done.stderr
    assert QUERY not in done.stdout + done.stderr
    assert json.loads(done.stdout)["endpoint"] == f"{endpoint.url}{path}"
    assert endpoint.questions
    assert {request.query for request in endpoint.requests} == {f"api-version=2026-11-01&token={QUERY}"}


@pytest.mark.parametrize(
    "url",
    [
        f"me:{PASSWORD}@host:8000/v1",
        f"http:/me:{PASSWORD}@host",
        f"http://me:12/{PASSWORD}@host/v1",
        f"http://127.0.0.1:9/v1#{PASSWORD}",
        f"http://127.0.0.1:9/v1?a#{PASSWORD}",
    ],
)
@pytest.mark.parametrize("variable", ["VLMBATCH_BASE_URL", "OPENAI_BASE_URL", "OLLAMA_HOST"])
def test_a_url_that_is_none_keeps_its_password(photos: Photos, url: str, variable: str) -> None:
    """A URL that cannot be used is told of without what stands before its @ and behind its #."""
    photos(1)
    backend = "ollama" if variable == "OLLAMA_HOST" else "openai"
    done = run("run", "photos", "-b", backend, "-m", "m", "--give-up-after", "0", **{variable: url})
    assert done.returncode in (2, 4)
    assert done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("key", "value", "wanted"), [("api-key", [KEY], "takes a text"), ("base-url", [KEY, 5], "takes texts")]
)
def test_a_wrong_type_in_the_file_is_told_without_its_value(
    photos: Photos, key: str, value: list[object], wanted: str
) -> None:
    """A list where one text belongs, or a number where a URL does, may still stand beside a key."""
    photos(1)
    Path("vlmbatch.toml").write_text(f"{key} = {json.dumps(value)}")
    done = run("run", "photos")
    assert done.returncode == 2
    assert f"--{key} {wanted}, not list" in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize("status", [401, 404, 0])  # it is masked as a key is: see above for the others
@pytest.mark.parametrize("backend", ["ollama", "vllm"])
def test_a_header_that_a_gateway_repeats_is_masked(photos: Photos, backend: str, status: int) -> None:
    """The value of --header, and the token in it, stand on no stream and in no file."""
    photos(2)
    options = ("--retries", "0", "--give-up-after", "0", "--no-canary", "-m", "x", "-v", "--log-json")
    with telltale(status) as place:
        asked = ("run", "photos", "-b", backend, "--base-url", f"http://{place}", "-o", "o.jsonl")
        done = run(*asked, *options, "--header", f"Authorization: Token {KEY}")
    left = everything(done.stdout, done.stderr)
    assert done.returncode in (2, 3, 4), done.stderr
    assert KEY not in left
    assert ("[key]" in left) == ((status, backend) in ((401, "ollama"), (401, "vllm"), (404, "vllm")))


def test_what_stands_for_no_key_is_a_word() -> None:
    """EMPTY and none, which servers without keys are given, are left in texts; a short password is not."""
    assert Access.to("http://h", "EMPTY").masked("EMPTY answer") == "EMPTY answer"
    assert Access.to("http://me:hunter2@h", None).masked("hunter2 for me") == "[key] for me"
    assert KEY not in repr(Access.to(f"http://me:{quote(PASSWORD, safe='')}@h?k={QUERY}", KEY))
    assert "hunter2" not in repr(Access.to("http://me:hunter2@h", None))


@pytest.mark.parametrize(
    "arguments",
    [
        (f"folder{STEERING}",),
        ("photos", "--backend", STEERING),
        ("photos", "--base-url", STEERING),
        ("photos", "--until", STEERING),
        ("photos", "--prompt-file", STEERING),
        ("photos", "--summary", f"no{STEERING}/s"),
        ("photos", "--metrics-file", f"no{STEERING}/s"),
        ("photos", "-o", f"no{STEERING}/o"),
        ("photos", "--config", STEERING),
        ("photos", f"--{STEERING}"),
        (f"odd{STEERING}", "--dry-run", "-b", "ollama"),
    ],
)
def test_what_was_typed_does_not_steer_the_terminal(photos: Photos, arguments: tuple[str, ...]) -> None:
    """Messages about wrong options show what was typed without its control characters."""
    photos(1)
    odd = Path(f"odd{STEERING}")
    odd.mkdir()
    (odd / "broken.jpg").write_text("no image")
    done = run("run", *arguments)
    assert done.stderr
    assert not [sign for sign in ("\x1b", "\x07") if sign in done.stderr + done.stdout]


def test_a_version_that_nobody_can_read_is_an_error(photos: Photos) -> None:
    """On a full device even --version says what is wrong, in one line."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1
