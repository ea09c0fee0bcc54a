"""`vlmbatch models`: what every endpoint has, as a table, as columns and as JSON."""

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
    """What --json prints, by model."""
    lines = models(*urls, more=("--json",)).stdout.splitlines()
    return {told["name"]: told for told in map(json.loads, lines)}


def ollama(**settings: Any) -> Endpoint:
    return Endpoint(speaks=("ollama",), **settings)


def test_what_ollama_tells() -> None:
    """Size, parameters, context and sight of each model, what is on the GPU, and who leaves the machine."""
    with ollama(models=HAS) as endpoint:
        told = facts(endpoint.url)
    seen = told["qwen2.5vl:7b"]
    assert (seen["bytes"], seen["parameters"], seen["context"]) == (6_000_000_000, "8.3B", 8192)
    assert (seen["sees"], seen["loaded"], seen["on_gpu"], seen["loaded_context"]) == (True, True, 0.61, 4096)
    assert (told["llama3:latest"]["sees"], told["llama3:latest"]["loaded"]) == (False, False)
    assert told["big:235b-cloud"]["elsewhere"] == "https://ollama.com:443"


def test_models_are_asked_about_where_the_list_tells_too_little() -> None:
    """Only a model of an older Ollama costs a question of its own."""
    with ollama(models=HAS) as endpoint:
        assert facts(endpoint.url)["llama3:latest"]["context"] == 8192
        shown = [request.model for request in endpoint.requests if request.path == "/api/show"]
    assert shown == ["llama3:latest"]


def test_a_model_that_cannot_be_shown_is_listed_all_the_same() -> None:
    """Trouble with one question leaves facts unknown, and no model out."""
    with ollama(models=HAS, routes={"/api/show": "500"}) as endpoint:
        told = facts(endpoint.url)
    assert (told["llama3:latest"]["sees"], told["llama3:latest"]["context"]) == (None, None)
    assert len(told) == 3


def test_what_openai_servers_tell() -> None:
    """vLLM tells no sight, llama.cpp's server tells all in /props; both have loaded what they serve."""
    one = {"one": Model()}
    with (
        Endpoint(speaks=("openai",)) as vllm,
        Endpoint(speaks=("openai",), owned_by="llamacpp", models=one, props=PROPS) as llama,
    ):
        told = facts(vllm.url, llama.url)
    assert (told["tiny-vision"]["backend"], told["tiny-vision"]["sees"]) == ("vllm", None)
    assert (told["one"]["sees"], told["one"]["loaded"], told["one"]["quantization"]) == (True, True, "F16")


def test_an_endpoint_that_speaks_both_wires_is_listed_once(endpoint: Endpoint) -> None:
    """Ollama has a /v1/models as well, and its models do not come twice."""
    lines = models(endpoint.url).stdout.splitlines()
    assert len(lines) == 1 + len(endpoint.models)


def test_columns_are_aligned_without_a_terminal() -> None:
    """In a pipe every row has its cells under the titles, without colours or frames."""
    with ollama(models=HAS) as endpoint:
        done = run("models", "--base-url", endpoint.url)
    titles, *rows = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(rows)) == (0, "", 3)
    at = titles.index("SEES")
    assert [row[at : at + 4].strip() for row in rows] == ["yes", "no", "yes"]
    assert "61% GPU, rest CPU" in done.stdout
    assert "leaves this machine: ollama.com" in done.stdout
    assert done.stdout.isascii()


def test_a_person_sees_a_table() -> None:
    """On a terminal there is a table in colours, and no name of a model is cut."""
    with ollama(models=HAS) as endpoint:
        with Terminal("models", "--base-url", endpoint.url, stdout=True, columns=100) as terminal:
            assert terminal.wait() == 0
            shown = "\n".join(terminal.rows)
        assert b"\x1b[" in terminal.raw
    assert all(name in shown for name in HAS)


def test_nobody_there_ends_with_4_at_once() -> None:
    """Without any endpoint it is exit 4, with what to start and how to say where."""
    done = models(CLOSED)
    assert (done.returncode, done.stdout) == (4, "")
    assert "ollama serve" in done.stderr
    assert "--base-url" in done.stderr


def test_one_of_several_is_away(endpoint: Endpoint) -> None:
    """The others are listed, who is missing is told, and the code is 4."""
    done = models(endpoint.url, CLOSED)
    assert done.returncode == 4
    assert "tiny-vision" in done.stdout
    assert CLOSED in done.stderr


def test_no_models_at_all() -> None:
    """An empty Ollama is no error, and the command that gets a model is told."""
    with ollama(models={}) as endpoint:
        done = models(endpoint.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "vlmbatch pull" in done.stderr


def test_no_model_that_sees() -> None:
    """Where no model takes pictures, that is told, with the command that gets one."""
    with ollama(models={"llama3": Model(vision=False)}) as endpoint:
        done = models(endpoint.url)
    assert done.returncode == 0
    assert "none of these models sees pictures" in done.stderr


def test_names_steer_no_terminal() -> None:
    """What a server calls its models is cleaned in the columns."""
    with ollama(models={"\x1b[31mred": Model()}) as endpoint:
        assert "\x1b" not in models(endpoint.url).stdout


def test_a_wrong_flag_and_a_wrong_address_end_with_2(tmp_path: Path) -> None:
    """Mistakes are told without a traceback; an option of a run is none of this command."""
    for wrong in (("--base-url", "nonsense"), ("--max-size", "3"), ("--backend", "none")):
        done = run("models", *wrong)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_any_name_can_be_printed() -> None:
    """Where standard output takes ASCII alone, other characters are replaced, and nothing breaks."""
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
