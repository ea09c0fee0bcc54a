"""No output has keys, passwords or queries of URLs, and no foreign text controls a terminal."""

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

from vlmbatch.backends.http.auth import Credentials

Photos = Callable[..., Path]
USER, PASSWORD, QUERY, KEY = "user-s3cret", "pa/s3cret", "query-s3cret", "key&s3cret"
SECRETS = (USER, PASSWORD, quote(PASSWORD, safe=""), QUERY, KEY)
STEERING = "\x1b[31m\x1b]0;title\x07"


@contextmanager
def telltale(status: int) -> Iterator[str]:
    """The address of a gateway whose error repeats the whole request and adds escape sequences.

    It escapes slashes and ampersands in JSON as PHP and Go do. Status 0 is a reply that is not HTTP.
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
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def everything(done_out: str, done_err: str) -> str:
    """The whole output of a run: its streams and its files."""
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
def test_secrets_that_a_gateway_repeats_are_masked(
    photos: Photos, backend: str, flag: str, status: int, typed: bool
) -> None:
    """Secrets that a gateway repeats are in no stream and in no file of the run."""
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
    """Every request has the query of the base URL, and no output has it."""
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
def test_the_password_of_a_malformed_url_is_hidden(photos: Photos, url: str, variable: str) -> None:
    """The message about an unusable URL has no text before its @ or after its #."""
    photos(1)
    backend = "ollama" if variable == "OLLAMA_HOST" else "openai"
    done = run("run", "photos", "-b", backend, "-m", "m", "--give-up-after", "0", **{variable: url})
    assert done.returncode in (2, 4)
    assert done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("api-key", [KEY], "takes a text, not list"),
        ("base-url", [KEY, 5], "takes texts, not int"),
        ("option", [f"api_key={KEY}", 5], "takes texts, not int"),
        ("extra-body", [KEY], "takes a text, not list"),
    ],
)
def test_the_error_for_a_wrong_type_hides_the_value(
    photos: Photos, key: str, value: list[object], wanted: str
) -> None:
    """The error for a wrong type in vlmbatch.toml hides the value of a secret option, and each list."""
    photos(1)
    Path("vlmbatch.toml").write_text(f"{key} = {json.dumps(value)}")
    done = run("run", "photos")
    assert done.returncode == 2
    assert f" {key} {wanted}" in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize("status", [401, 404, 0])  # it is masked as a key is: see above for the others
@pytest.mark.parametrize("backend", ["ollama", "vllm"])
def test_a_header_that_a_gateway_repeats_is_masked(photos: Photos, backend: str, status: int) -> None:
    """The token in a --header is in no stream and in no file."""
    photos(2)
    options = ("--retries", "0", "--give-up-after", "0", "--no-canary", "-m", "x", "-v", "--log-json")
    with telltale(status) as place:
        asked = ("run", "photos", "-b", backend, "--base-url", f"http://{place}", "-o", "o.jsonl")
        done = run(*asked, *options, "--header", f"Authorization: Token {KEY}")
    left = everything(done.stdout, done.stderr)
    assert done.returncode in (2, 3, 4), done.stderr
    assert KEY not in left
    assert ("[key]" in left) == (status != 0)


def test_a_placeholder_key_is_not_masked() -> None:
    """The placeholder key EMPTY stays in texts, a short password is masked, and no repr shows a secret."""
    assert Credentials.of("http://h", "EMPTY").masked("EMPTY answer") == "EMPTY answer"
    assert Credentials.of("http://me:hunter2@h", None).masked("hunter2 for me") == "[key] for me"
    assert KEY not in repr(Credentials.of(f"http://me:{quote(PASSWORD, safe='')}@h?k={QUERY}", KEY))
    assert "hunter2" not in repr(Credentials.of("http://me:hunter2@h", None))


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
def test_typed_text_cannot_control_the_terminal(photos: Photos, arguments: tuple[str, ...]) -> None:
    """Messages about wrong options have no control characters of the typed text."""
    photos(1)
    odd = Path(f"odd{STEERING}")
    odd.mkdir()
    (odd / "broken.jpg").write_text("no image")
    done = run("run", *arguments)
    assert done.stderr
    assert not [sign for sign in ("\x1b", "\x07") if sign in done.stderr + done.stdout]


def test_a_version_that_cannot_be_written_is_an_error(photos: Photos) -> None:
    """--version on a full device exits 5 with one line."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1
