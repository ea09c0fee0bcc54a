"""`vlmbatch pull`: its output, its waiting and retries, and its exit codes."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from certificates import make_certificates
from command import run, start
from endpoint import Endpoint
from inside import called
from terminal import Terminal

CLOSED = "http://127.0.0.1:9"


def pull(endpoint: Endpoint, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return called("pull", *more, "--base-url", endpoint.url, **variables)


def pulls(endpoint: Endpoint) -> list[str]:
    """The models of all pull requests to Ollama."""
    return [request.model for request in endpoint.requests if request.path == "/api/pull"]


def test_each_model_is_one_line_without_a_terminal(endpoint: Endpoint) -> None:
    """Models are pulled in order, with exactly one line each on standard error."""
    done = run("pull", "llava:7b", "tiny-vision", "--base-url", endpoint.url)
    assert (done.returncode, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("vlmbatch: llava:7b: fetched 5.0 MB in ")
    assert second == "vlmbatch: tiny-vision: already present"
    assert pulls(endpoint) == ["llava:7b", "tiny-vision"]


def test_a_terminal_shows_a_bar() -> None:
    """In a terminal of 80 columns a model has a bar with bytes, which ends with the amount fetched."""
    with Endpoint() as endpoint, Terminal("pull", "llava:7b", "--base-url", endpoint.url) as terminal:
        assert terminal.wait() == 0
        assert any("llava:7b" in row and "━" in row and "5.0/5.0 MB" in row for row in terminal.rows)
        assert "fetched 5.0 MB" in "".join(terminal.rows)


def test_a_pull_that_breaks_off_is_retried(endpoint: Endpoint) -> None:
    """A lost connection, an error during the pull and an invalid reply are reported and retried."""
    endpoint.pulls = ["pull_cut", "pull_error", "pull_garbage"]
    done = pull(endpoint, "llava:7b")
    assert done.returncode == 0, done.stderr
    assert len(pulls(endpoint)) == 4
    assert done.stderr.count("; retry in") == 3
    assert "max retries exceeded: EOF" in done.stderr


def test_a_pull_without_progress_exits_4(endpoint: Endpoint) -> None:
    """After --retries attempts without new bytes pull exits 4, and the message says to run it again."""
    endpoint.pulls = ["500"] * 9
    done = pull(endpoint, "llava:7b", "--retries", "1")
    assert done.returncode == 4
    assert "run the same command again" in done.stderr
    assert len(pulls(endpoint)) == 2


@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        ("no-such:7b", "", "check its name"),
        ("two words", "", "check its name"),
        ("llava", "pull_error:no space left on device", "free disk space"),
        ("llava", "pull_error:this model requires a newer version of Ollama", "update Ollama"),
        ("llava", "401", "key"),
    ],
)
def test_a_permanent_failure_exits_2(endpoint: Endpoint, name: str, mode: str, told: str) -> None:
    """An unknown model, a full disk, an old Ollama and a wrong key exit 2 without a retry, with advice."""
    endpoint.pulls = [mode] if mode else []
    done = pull(endpoint, name)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(pulls(endpoint)) == 1
    assert "Traceback" not in done.stderr


def test_vllm_cannot_pull() -> None:
    """A server or a --backend that is not Ollama exits 2, and the message says how vLLM gets its model."""
    with Endpoint(speaks=("openai",)) as vllm:
        refused = pull(vllm, "llava")
        named = pull(vllm, "llava", "--backend", "vllm")
    assert (refused.returncode, named.returncode) == (2, 2)
    assert "is not an Ollama server" in refused.stderr
    assert all(
        "vLLM and other servers load their model when they start" in d.stderr for d in (refused, named)
    )


def test_no_endpoint_exits_4() -> None:
    """An unreachable Ollama exits 4, and the message says what to start."""
    done = run("pull", "llava", "--base-url", CLOSED, "--give-up-after", "0.2")
    assert done.returncode == 4
    assert "ollama serve" in done.stderr


def test_wait_waits_for_the_endpoint(endpoint: Endpoint) -> None:
    """With --wait pull waits until Ollama is up, and then pulls the model."""
    endpoint.down()
    waiting = start("pull", "llava", "--wait", "--base-url", endpoint.url, stderr=subprocess.PIPE)
    assert waiting.stderr is not None
    assert "waiting for up to 15m" in waiting.stderr.readline()
    endpoint.up()
    _, told = waiting.communicate(timeout=240)
    assert waiting.returncode == 0, told
    assert pulls(endpoint) == ["llava"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly(endpoint: Endpoint, sent: signal.Signals, code: int) -> None:
    """SIGINT during a pull exits 130 and SIGTERM 143, without a message."""
    endpoint.pulls = ["pull_stall"]
    running = start("pull", "llava", "--base-url", endpoint.url, stderr=subprocess.PIPE)
    endpoint.until(lambda: bool(pulls(endpoint)))
    running.send_signal(sent)
    _, told = running.communicate(timeout=240)
    assert (running.returncode, told) == (code, "")


def test_quiet_and_json(endpoint: Endpoint) -> None:
    """With -q a successful pull prints nothing; with --log-json each line is an event."""
    assert pull(endpoint, "llava", "-q").stderr == ""
    told = pull(endpoint, "llava", "--log-json").stderr
    assert "llava: already present" in json.loads(told)["message"]


def test_the_model_may_come_from_the_environment(endpoint: Endpoint) -> None:
    """VLMBATCH_MODEL, which a run reads too, names the model if the command line does not."""
    assert pull(endpoint, VLMBATCH_MODEL="llava:7b").returncode == 0
    assert pulls(endpoint) == ["llava:7b"]


def test_a_file_with_options_of_a_run_is_accepted(endpoint: Endpoint, tmp_path: Path) -> None:
    """Keys of vlmbatch.toml that only a run uses are accepted, and a misspelt key exits 2."""
    file = tmp_path / "vlmbatch.toml"
    file.write_text(f'base-url = "{endpoint.url}"\nmax-size = 768\noutput = "o.jsonl"\noverwrite = true\n')
    assert called("pull", "llava", "--config", str(file)).returncode == 0
    file.write_text("max-sise = 768\n")
    wrong = called("pull", "llava", "--config", str(file))
    assert wrong.returncode == 2
    assert "did you mean max-size?" in wrong.stderr


def test_hostile_messages_are_cleaned(endpoint: Endpoint) -> None:
    """The message of a server is printed without escape sequences."""
    endpoint.pulls = ["pull_error:\x1b[31mfile does not exist\x1b]0;x\x07"]
    assert "\x1b" not in pull(endpoint, "llava").stderr


@pytest.mark.parametrize("line", ["[]", "7", '{"completed": "much"}', '{"error": {"code": 1}}', "[" * 9999])
def test_lines_that_ollama_does_not_send(endpoint: Endpoint, line: str) -> None:
    """JSON of another form, and such as Python cannot read, is a failure that is told and asked again."""
    endpoint.pulls = [f"pull_line:{line}"]
    done = pull(endpoint, "llava")
    assert (done.returncode, len(pulls(endpoint))) == (0, 2), done.stderr
    assert "retry in" in done.stderr
    assert "Traceback" not in done.stderr


def test_empty_lines_are_nothing(endpoint: Endpoint) -> None:
    """Blank lines between the steps, as some proxies send to keep a line alive, are passed over."""
    endpoint.pulls = ['pull_line:\n \r\n{"status": "success"}\n\n']
    done = pull(endpoint, "llava", "--log-json")
    assert (done.returncode, len(pulls(endpoint))) == (0, 1), done.stderr


def test_a_pull_goes_the_way_of_a_run(tmp_path: Path) -> None:
    """Certificates, own headers and the query of the URL go with a pull, and no error tells a secret."""
    files = make_certificates(tmp_path)
    shown = {"ca-cert": "ca.pem", "client-cert": "client.pem", "client-key": "client.key"}
    flags = [word for flag, file in shown.items() for word in (f"--{flag}", files.path(file))]
    with Endpoint(tls=files.server(wants_client=True)) as endpoint:
        endpoint.pulls = ["pull_error:no token-s3cret, no key-s3cret: file does not exist"]
        url = f"{endpoint.url}?token=token-s3cret"
        done = run(
            "pull", "llava", *flags, "--header", "X-Team: red", "--base-url", url, OLLAMA_API_KEY="key-s3cret"
        )
        [asked] = [request for request in endpoint.requests if request.path == "/api/pull"]
    assert done.returncode == 2
    assert "no [key], no [key]: file does not exist" in done.stderr
    assert asked.query == "token=token-s3cret"
    assert (asked.headers["x-team"], asked.headers["authorization"]) == ("red", "Bearer key-s3cret")


@pytest.mark.parametrize(
    "variables",
    [
        {"OLLAMA_HOST": "'127.0.0.1:PORT'"},
        {"OLLAMA_HOST": "127.0.0.1:PORT", "SSL_CERT_FILE": "/nowhere"},
        {"OLLAMA_HOST": "127.0.0.1:PORT", "ALL_PROXY": "socks5://127.0.0.1:1", "HTTP_PROXY": "foo://x"},
    ],
)
def test_the_environment_does_not_disturb_a_pull(endpoint: Endpoint, variables: dict[str, str]) -> None:
    """What the ollama package stumbles over when it is imported holds up no pull from this machine."""
    done = run("pull", "llava", **{k: v.replace("PORT", str(endpoint.port)) for k, v in variables.items()})
    assert done.returncode == 0, done.stderr
    assert pulls(endpoint) == ["llava"]
