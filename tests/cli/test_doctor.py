"""`vlmbatch doctor`: its checks, its advice and its exit codes."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, environment, run, start
from endpoint import Endpoint, Model
from inside import called

from vlmbatch.commands.doctor.picked_image import MOST_COUNTED, pick_image
from vlmbatch.config import RunConfig
from vlmbatch.imaging.capabilities import drawn_shapes

Photos = Callable[..., Path]
CLOSED = "http://127.0.0.1:9"
SEEING = ("-m", "tiny-vision")
CHECKS = ["reachable", "model", "takes pictures", "loaded", "really sees", "context", "at once", "one image"]


def doctor(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return called("doctor", *args, **variables)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The findings that --json printed, by check; the last one of each name."""
    return {told["check"]: told for told in map(json.loads, done.stdout.splitlines())}


def look(endpoint: Endpoint, *args: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = doctor("--json", "--base-url", endpoint.url, *SEEING, *args)
    assert done.stderr == ""
    return done.returncode, findings(done)


def test_all_is_well(endpoint: Endpoint, photos: Photos) -> None:
    """All checks pass in their order, the image is sent, and the last line is a run that works."""
    photo = photos(1) / "p0000.jpg"
    code, found = look(endpoint, str(photo))
    assert code == 0
    assert list(found) == ["version", "formats", "resizing", *CHECKS, "answer", "next"]
    assert {f["mark"] for f in found.values()} <= {"ok", "skipped"}
    assert found["reachable"]["told"] == f"ollama 0.33.0 at {endpoint.url}"
    assert "size=64x48" in found["answer"]["told"]
    assert found["one image"]["figures"]["output_tokens"] > 0
    words = shlex.split(found["next"]["told"])
    assert words[:3] == ["vlmbatch", "run", "FOLDER"]
    assert run(*words[1:2], "photos", *words[3:-2]).returncode == 0


def test_a_line_for_each_check(endpoint: Endpoint) -> None:
    """Each finding is a line with its mark, and its advice is in the line below."""
    done = run("doctor", "--base-url", endpoint.url, *SEEING)
    assert done.returncode == 0
    assert f"ok       reachable: ollama 0.33.0 at {endpoint.url}\n" in done.stdout
    assert "-> for more, start Ollama with OLLAMA_NUM_PARALLEL=4" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("ok       next: vlmbatch run FOLDER --backend ollama")


def test_without_an_image_one_is_drawn(endpoint: Endpoint) -> None:
    """Without an image the drawn picture is sent in the size of a run."""
    look(endpoint)
    assert [(p.width, p.height) for p in endpoint.questions[-1].pictures] == [(1024, 768)]


@pytest.mark.slow
def test_without_any_endpoint_the_embedded_model_is_checked() -> None:
    """Without a server the demonstration model passes all checks, and a warning says that it is used."""
    done = doctor("--json")
    found = findings(done)
    assert done.returncode == 0, done.stdout
    assert found["reachable"]["told"].startswith("llama-cpp ")
    assert "demonstration model" in found["note"]["told"]
    assert "circle" in found["answer"]["told"]
    assert found["next"]["told"] == "vlmbatch run FOLDER --output answers.jsonl"


def test_no_endpoint() -> None:
    """A closed port exits 4 with advice, and all later checks are skipped."""
    done = doctor("--json", "-b", "ollama", "--base-url", CLOSED, "--give-up-after", "0.2")
    found = findings(done)
    assert done.returncode == 4
    assert (found["reachable"]["mark"], found["reachable"]["exit_code"]) == ("wrong", 4)
    assert "ollama serve" in found["reachable"]["advice"]
    assert {found[check]["mark"] for check in CHECKS[1:]} == {"skipped"}
    assert found["next"]["mark"] == "skipped"


@pytest.mark.parametrize(
    ("args", "check", "told", "advice"),
    [
        (("-m", "tiny-visoin"), "model", "has no model 'tiny-visoin'", "tiny-vision"),
        (("-m", "tiny-text"), "really sees", "cannot see images", "--model"),
        (("-m", "tiny-text", "--no-canary"), "model", "cannot see images", "--model"),
    ],
)
def test_an_unusable_model(
    endpoint: Endpoint, args: tuple[str, ...], check: str, told: str, advice: str
) -> None:
    """An unknown model and one without vision exit 2, with the error in the finding of its check."""
    done = doctor("--json", "-b", "ollama", "--base-url", endpoint.url, *args)
    found = findings(done)
    assert done.returncode == 2
    assert found["reachable"]["mark"] == "ok"
    assert told in found[check]["told"]
    assert advice in found[check]["advice"]
    assert found["one image"]["mark"] == "skipped"


def test_several_models_to_choose_from() -> None:
    """Without --model, several vision models exit 2, and the finding lists them."""
    with Endpoint(models={"a": Model(), "b": Model()}) as endpoint:
        done = doctor("--json", "-b", "ollama", "--base-url", endpoint.url)
    assert done.returncode == 2
    assert "a:latest, b:latest" in findings(done)["model"]["told"]


def test_a_blind_server(endpoint: Endpoint) -> None:
    """An endpoint that reports vision but drops pictures exits 2."""
    endpoint.blind = True
    code, found = look(endpoint)
    assert code == 2
    assert found["takes pictures"]["mark"] == "ok"
    assert found["really sees"]["mark"] == "wrong"
    assert found["one image"]["mark"] == "skipped"


@pytest.mark.parametrize("counts", ["none", "text"])
@pytest.mark.parametrize(
    ("words", "mark"), [("I cannot see any image.", "wrong"), ("A picture.", "warning"), ("Orange", "ok")]
)
def test_a_colour_without_believable_counts(endpoint: Endpoint, counts: str, words: str, mark: str) -> None:
    """Without believable token counts doctor judges by the colour, as a run does."""
    endpoint.counts = counts
    endpoint.answer_canary = lambda request: words
    code, found = look(endpoint)
    assert (code, found["really sees"]["mark"]) == (2 if mark == "wrong" else 0, mark)


@pytest.mark.parametrize(
    ("share", "told"), [(0.61, "only 61% of it on the GPU"), (0.0, "all of it on the CPU")]
)
def test_a_model_that_does_not_fit_the_gpu(share: float, told: str) -> None:
    """A model that is not completely on the GPU is a warning, not an error."""
    with Endpoint(models={"tiny-vision": Model(on_gpu=share)}) as endpoint:
        code, found = look(endpoint)
    assert code == 0
    assert found["loaded"]["mark"] == "warning"
    assert told in found["loaded"]["told"]


def test_a_cold_model_is_loaded_first() -> None:
    """A model that is not loaded is loaded with the options of a run, and the finding has the time."""
    with Endpoint(models={"tiny-vision": Model(on_gpu=None)}) as endpoint:
        _, found = look(endpoint, "--num-ctx", "4096")
        first = endpoint.questions[0]
    assert "load_s" in found["loaded"]["figures"]
    assert first.pictures == ()
    assert first.body["options"]["num_ctx"] == 4096


def test_a_question_without_a_picture_that_fails() -> None:
    """If a question without a picture fails, doctor goes on to the pictures, as a run does."""
    with Endpoint(models={"tiny-vision": Model(on_gpu=None)}, script=["500"]) as endpoint:
        code, found = look(endpoint)
    assert (code, found["loaded"]["mark"], found["one image"]["mark"]) == (0, "skipped", "ok")


def test_a_context_that_is_too_small() -> None:
    """If photo, prompt and answer exceed the context, the advice names the option that enlarges it."""
    with Endpoint(models={"qwen2.5vl": Model(family="qwen25vl")}) as endpoint:
        done = doctor("--json", "--base-url", endpoint.url, "-m", "qwen2.5vl", "--num-ctx", "1024")
    found = findings(done)
    assert found["context"]["mark"] == "warning"
    assert f"--num-ctx {found['context']['figures']['needed']}" in found["context"]["advice"]


def test_an_image_that_is_not_answered(endpoint: Endpoint) -> None:
    """A failed request is in the finding of the image, with the exit code of its kind."""
    endpoint.script = ["loop"]
    code, found = look(endpoint)
    assert (code, found["one image"]["mark"]) == (2, "wrong")
    endpoint.script = lambda request: "500"
    code, found = look(endpoint)
    assert (code, found["one image"]["mark"]) == (4, "wrong")


def test_each_of_several_endpoints(endpoint: Endpoint) -> None:
    """Every --base-url is checked, the first error sets the exit code, and the run has the good endpoints."""
    with Endpoint(speaks=("openai",)) as vllm:
        args = ("--base-url", endpoint.url, "--base-url", CLOSED, "--base-url", vllm.url, *SEEING)
        done = doctor(*args, "--give-up-after", "0.2")
    assert done.returncode == 4
    last = done.stdout.splitlines()[-1]
    assert f"--backend auto --model tiny-vision --base-url {endpoint.url} --base-url {vllm.url}" in last
    assert CLOSED not in last


def test_a_folder_gives_its_first_good_image(endpoint: Endpoint, photos: Photos) -> None:
    """The first good image is sent, a broken one before it is a warning, and the last line has the folder."""
    photos(3)
    Path("photos").rename("my photos")
    Path("my photos/a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    Path("my photos/x.pdf").write_bytes(b"%PDF-1.4")
    done = doctor("--json", "my photos", "--base-url", endpoint.url, *SEEING)
    first, broken = [f for f in map(json.loads, done.stdout.splitlines()) if f["check"] == "images"]
    assert done.returncode == 0, done.stdout
    assert first["told"] == "4 images below my photos (1 PDF: not read); my photos/p0000.jpg is sent"
    assert (first["mark"], first["figures"]) == ("ok", {"images": 4})
    assert (broken["mark"], broken["told"].partition(": ")[0]) == ("warning", "my photos/a.jpg")
    assert [(p.width, p.height) for p in endpoint.questions[-1].pictures] == [(64, 48)]
    words = shlex.split(findings(done)["next"]["told"])
    assert words[:4] == ["vlmbatch", "run", "my photos", "--backend"]


def test_a_folder_that_a_run_cannot_use(endpoint: Endpoint, photos: Photos) -> None:
    """A folder without a good image is wrong, with what to do; the endpoint is checked with a drawn one."""
    photos(0)
    empty, told = look(endpoint, "photos")
    for number in range(6):
        Path(f"photos/{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    broken, told_of_broken = look(endpoint, "photos")
    assert empty == broken == 2
    assert told["images"]["told"].startswith("no image below photos: 0 files")
    assert told["images"]["advice"] == "name a folder that holds images"
    assert told_of_broken["images"]["told"] == (
        "6 images below photos, and none of the first 5 can be sent; a drawn one is sent instead"
    )
    for found in (told, told_of_broken):
        assert (found["one image"]["mark"], found["next"]["mark"]) == ("ok", "skipped")


def test_the_count_of_a_large_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor counts a large folder only up to a bound, and says so."""
    monkeypatch.chdir(tmp_path)
    Path("many").mkdir()
    for number in range(MOST_COUNTED + 9):
        Path(f"many/{number:05}.png").write_bytes(drawn_shapes() if number == 0 else b"")
    (told,) = pick_image("many", RunConfig.of(".")).findings
    assert told.told == "at least 1,000 images below many; many/00000.png is sent"


def test_unusable_images(endpoint: Endpoint, tmp_path: Path) -> None:
    """A missing file ends doctor before any check, a broken image fails its own check, and both exit 2."""
    missing = doctor("nosuch.jpg")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "nosuch.jpg does not exist" in missing.stderr
    os.mkfifo(tmp_path / "pipe")  # nothing writes to it, so reading it would wait without end
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        special = doctor(path)
        assert special.returncode == 2
        assert f"{path} cannot be read: the path is a" in special.stderr
    (tmp_path / "x.jpg").write_text("no image")
    code, found = look(endpoint, str(tmp_path / "x.jpg"))
    assert (code, found["one image"]["mark"]) == (2, "wrong")


def test_a_canary_that_is_always_refused_is_a_doubt(endpoint: Endpoint) -> None:
    """If each canary is refused as busy and the image is answered, doctor warns and exits 0."""
    endpoint.canary = "503-busy"
    code, found = look(endpoint)
    assert (code, found["really sees"]["mark"], found["one image"]["mark"]) == (0, "warning", "ok")
    assert "could not prove" in found["really sees"]["told"]


def test_a_closed_pipe_and_ctrl_c_are_quiet(endpoint: Endpoint) -> None:
    """`| head` ends doctor without a message, and Ctrl-C during a request exits 130 without a message."""
    command = shlex.join([*COMMAND, "doctor", "--base-url", endpoint.url, *SEEING])
    script = f"{command} | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=environment(), check=False)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, b"")
    endpoint.canary = "hang"
    args = ("doctor", "--base-url", endpoint.url, *SEEING)
    running = start(*args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    endpoint.until(lambda: bool(endpoint.canaries) and endpoint.canaries[-1].mode == "hang")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=240)
    assert (running.returncode, told) == (130, "")


def test_answers_cannot_control_the_terminal(endpoint: Endpoint) -> None:
    """An answer is printed without escape sequences, and no output has a password."""
    endpoint.answer = lambda request: "a \x1b[31mred\x1b]0;title\x07 cat"
    done = doctor("--base-url", endpoint.url.replace("//", "//me:secret@"), *SEEING)
    assert "answer: a red cat" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
