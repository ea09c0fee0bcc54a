"""`vlmbatch models`: the models of every endpoint, as a table, as columns and as JSON."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, run
from endpoint import Endpoint, Model
from inside import called
from terminal import Terminal

CLOSED = "http://127.0.0.1:9"
HAS = {
    "qwen2.5vl:7b": Model(bytes=6_000_000_000, parameters="8.3B", on_gpu=0.61),
    "llama3": Model(vision=False, on_gpu=None, older=True),
    "big:235b-cloud": Model(remote="https://ollama.com:443", on_gpu=None),
}
PROPS = {"total_slots": 2, "model_ftype": "F16", "modalities": {"vision": True}}


def models(*urls: str, more: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return called("models", *(word for url in urls for word in ("--base-url", url)), *more)


def facts(*urls: str) -> dict[str, dict[str, Any]]:
    """The output of --json, by model."""
    lines = models(*urls, more=("--json",)).stdout.splitlines()
    return {told["name"]: told for told in map(json.loads, lines)}


def ollama(**settings: Any) -> Endpoint:
    return Endpoint(speaks=("ollama",), **settings)


def test_the_facts_from_ollama() -> None:
    """Ollama's models have size, parameters, context, vision, GPU share and, if hosted, the remote host."""
    with ollama(models=HAS) as endpoint:
        told = facts(endpoint.url)
    seen = told["qwen2.5vl:7b"]
    assert (seen["bytes"], seen["parameters"], seen["context"]) == (6_000_000_000, "8.3B", 8192)
    assert (seen["sees"], seen["loaded"], seen["on_gpu"], seen["loaded_context"]) == (True, True, 0.61, 4096)
    assert (told["llama3:latest"]["sees"], told["llama3:latest"]["loaded"]) == (False, False)
    assert told["big:235b-cloud"]["elsewhere"] == "https://ollama.com:443"


def test_a_model_is_queried_if_the_list_lacks_its_facts() -> None:
    """Only a model of an older Ollama needs its own request."""
    with ollama(models=HAS) as endpoint:
        assert facts(endpoint.url)["llama3:latest"]["context"] == 8192
        shown = [request.model for request in endpoint.requests if request.path == "/api/show"]
    assert shown == ["llama3:latest"]


def test_a_model_that_cannot_be_shown_is_listed_all_the_same() -> None:
    """A failed request for one model leaves its facts unknown, and all models are listed."""
    with ollama(models=HAS, routes={"/api/show": "500"}) as endpoint:
        told = facts(endpoint.url)
    assert (told["llama3:latest"]["sees"], told["llama3:latest"]["context"]) == (None, None)
    assert len(told) == 3


def test_the_facts_from_openai_servers() -> None:
    """vLLM does not report vision; llama.cpp's server reports vision, quantisation and its loaded model."""
    one = {"one": Model()}
    with (
        Endpoint(speaks=("openai",)) as vllm,
        Endpoint(speaks=("openai",), owned_by="llamacpp", models=one, props=PROPS) as llama,
    ):
        told = facts(vllm.url, llama.url)
    assert (told["tiny-vision"]["backend"], told["tiny-vision"]["sees"]) == ("vllm", None)
    assert (told["one"]["sees"], told["one"]["loaded"], told["one"]["quantization"]) == (True, True, "F16")


def test_an_endpoint_with_both_api_formats_is_listed_once(endpoint: Endpoint) -> None:
    """The models of an Ollama, which also has /v1/models, are listed once."""
    lines = models(endpoint.url).stdout.splitlines()
    assert len(lines) == 1 + len(endpoint.models)


def test_columns_are_aligned_without_a_terminal() -> None:
    """In a pipe every cell is under its title, without colours or frames."""
    with ollama(models=HAS) as endpoint:
        done = run("models", "--base-url", endpoint.url)
    titles, *rows = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(rows)) == (0, "", 3)
    at = titles.index("VISION")
    assert [row[at : at + 4].strip() for row in rows] == ["yes", "no", "yes"]
    assert "61% GPU, rest CPU" in done.stdout
    assert "leaves this machine: ollama.com" in done.stdout
    assert done.stdout.isascii()


def test_a_terminal_shows_a_table() -> None:
    """On a terminal the models are a table with colours, and no name of a model is cut."""
    with ollama(models=HAS) as endpoint:
        with Terminal("models", "--base-url", endpoint.url, stdout=True, columns=100) as terminal:
            assert terminal.wait() == 0
            shown = "\n".join(terminal.rows)
        assert b"\x1b[" in terminal.raw
    assert all(name in shown for name in HAS)


def test_no_endpoint_exits_4_at_once() -> None:
    """Without any endpoint the command exits 4, and the message says what to start and names --base-url."""
    done = models(CLOSED)
    assert (done.returncode, done.stdout) == (4, "")
    assert "ollama serve" in done.stderr
    assert "--base-url" in done.stderr


def test_one_of_several_endpoints_is_down(endpoint: Endpoint) -> None:
    """With one endpoint down the models of the other are listed, the missing one is named, and exit is 4."""
    done = models(endpoint.url, CLOSED)
    assert done.returncode == 4
    assert "tiny-vision" in done.stdout
    assert CLOSED in done.stderr


def test_no_models_at_all() -> None:
    """An Ollama without models exits 0, and the message has the command that pulls one."""
    with ollama(models={}) as endpoint:
        done = models(endpoint.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "vlmbatch pull" in done.stderr


def test_no_vision_model() -> None:
    """Without a vision model the command exits 0, and a message says so."""
    with ollama(models={"llama3": Model(vision=False)}) as endpoint:
        done = models(endpoint.url)
    assert done.returncode == 0
    assert "none of these models can see images" in done.stderr


def test_names_cannot_control_the_terminal() -> None:
    """The names of models are printed without escape sequences."""
    with ollama(models={"\x1b[31mred": Model()}) as endpoint:
        assert "\x1b" not in models(endpoint.url).stdout


def test_a_wrong_flag_and_a_wrong_address_end_with_2(tmp_path: Path) -> None:
    """A wrong URL, an option of another command and an unknown backend exit 2 without a traceback."""
    for wrong in (("--base-url", "nonsense"), ("--max-size", "3"), ("--backend", "none")):
        done = run("models", *wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_any_name_can_be_printed() -> None:
    """Characters that the encoding of standard output lacks are replaced, without an error."""
    with ollama(models={"mödel": Model()}) as endpoint:
        done = run("models", "--base-url", endpoint.url, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "m?del" in done.stdout


@pytest.mark.parametrize(
    ("away", "out", "code", "told"),
    [("", ">/dev/full", 5, 1), ("", "| true", 0, 0), (CLOSED, ">/dev/full", 4, 1), (CLOSED, "| true", 4, 0)],
)
def test_a_list_that_cannot_be_written(endpoint: Endpoint, away: str, out: str, code: int, told: int) -> None:
    """A full disk is told once, as exit 5; a gone reader is no error; neither hides a failure."""
    asked = f"models --give-up-after 0 --base-url {endpoint.url} {away and '--base-url ' + away}"
    done = run(command=("bash", "-c", f"{' '.join(COMMAND)} {asked} {out}; exit ${{PIPESTATUS[0]}}"))
    assert done.returncode == code
    assert done.stderr.count("cannot write to standard output") == told
