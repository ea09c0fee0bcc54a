"""The metrics of a run as Prometheus reads them, and the file for a node exporter."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run, start
from endpoint import Endpoint
from prometheus_client.parser import text_string_to_metric_families
from run_events import EVENTS, STARTED
from waiting import until

from vlmbatch.observers.prometheus import Metrics, MetricsFile

Photos = Callable[..., Path]


def numbers(text: str) -> dict[str, float]:
    """Every sample by its name and labels, read by Prometheus's own parser."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = "".join(f" {key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name + labels] = sample.value
    return found


def read(path: str) -> dict[str, float]:
    return numbers(Path(path).read_text())


def test_every_event_is_counted(tmp_path: Path) -> None:
    """The file has the right values after one event of each kind."""
    kept = MetricsFile(str(tmp_path / "m.prom"), warn=pytest.fail)
    for event in EVENTS:
        kept(event)
    kept.end(3, None)
    found = read(str(tmp_path / "m.prom"))
    expected = {
        "vlmbatch_images_total status=ok": 1,
        "vlmbatch_images_total status=error": 1,
        "vlmbatch_failures_total kind=bad_image": 1,
        "vlmbatch_retries_total kind=timeout": 1,
        "vlmbatch_images_skipped": 3,
        "vlmbatch_images_expected": 10,
        "vlmbatch_concurrency": 8,
        "vlmbatch_endpoint_up": 1,
        "vlmbatch_unreadable_total": 1,
        "vlmbatch_image_seconds_count": 1,
        "vlmbatch_running": 0,
        "vlmbatch_exit_code": 3,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["vlmbatch_paused_seconds_total"] == pytest.approx(3.2)
    assert found["vlmbatch_last_image_timestamp_seconds"] >= found["vlmbatch_started_timestamp_seconds"] > 1e9
    assert not [name for name in found if "_created" in name]
    assert [p.name for p in tmp_path.iterdir()] == ["m.prom"]


def test_two_runs_in_one_process_count_apart() -> None:
    """Each run has its own registry, so that a second run starts at 0."""
    first, second = Metrics(), Metrics()
    for event in EVENTS:
        first(event)
    name, labels = "vlmbatch_images_total", {"status": "ok"}
    assert first.registry.get_sample_value(name, labels) == 1
    assert second.registry.get_sample_value(name, labels) == 0


def test_a_file_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    """If the file cannot be written, the run goes on and exactly one message says so."""
    told = list[str]()
    folder = tmp_path / "metrics"
    kept = MetricsFile(str(folder / "m.prom"), told.append, every_s=0.01)
    kept(STARTED)
    until(lambda: kept._trouble)
    for event in (*EVENTS, *EVENTS):
        if event is not STARTED:
            kept(event)
    kept.end(0, None)
    assert len(told) == 1
    assert "m.prom" in told[0]
    assert told[0].endswith("No such file or directory; the run goes on")


def test_a_last_write_that_fails_says_not_that_the_run_goes_on(tmp_path: Path) -> None:
    """If only the write at the end fails, the message does not say that the run goes on."""
    told = list[str]()
    MetricsFile(str(tmp_path / "metrics" / "m.prom"), told.append).end(5, None)
    assert [text.partition("cannot be written: ")[2] for text in told] == ["No such file or directory"]


def test_the_file_is_written_during_the_run(photos: Photos, endpoint: Endpoint) -> None:
    """The file is complete from the start of the real command, and has the exit code at the end."""
    (photos(6) / "bad.jpg").write_text("no image")
    endpoint.script = ["ok", *["hang"] * 9]
    asked = ["run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl"]
    running = start(*asked, "--metrics-file", "m.prom", stderr=subprocess.PIPE)
    endpoint.until(lambda: len(endpoint.questions) >= 2 and Path("m.prom").exists())
    during = read("m.prom")
    assert (during["vlmbatch_running"], during["vlmbatch_exit_code"]) == (1, -1)
    running.kill()
    running.communicate()
    endpoint.script = []
    assert run(*asked, "--metrics-file", "m.prom").returncode == 3
    after = read("m.prom")
    assert (after["vlmbatch_running"], after["vlmbatch_exit_code"]) == (0, 3)
    written = [json.loads(line)["status"] for line in Path("o.jsonl").read_text().splitlines()]
    assert written.count("ok") == 6
    assert after["vlmbatch_images_total status=ok"] + after["vlmbatch_images_skipped"] >= 6
    assert after["vlmbatch_tokens_total direction=output"] > 0
    beside = {"o.jsonl.lock", "o.jsonl.runs"}
    assert {p.name for p in Path().iterdir()} == {"m.prom", "o.jsonl", "photos"} | beside


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere/m.prom", "mkdir -p nowhere"),
        ("photos", "is a folder"),
    ],
)
@pytest.mark.parametrize("flag", ["--metrics-file", "--summary"])
def test_an_unusable_path_is_refused_before_the_run(
    photos: Photos, endpoint: Endpoint, flag: str, path: str, told: str
) -> None:
    """An unusable path for a report exits 2 before any request, and the message names flag and remedy."""
    photos(1)
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", flag, path)
    assert done.returncode == 2
    assert flag in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert endpoint.questions == []


def test_a_device_is_not_replaced_by_metrics(photos: Photos, endpoint: Endpoint) -> None:
    """--metrics-file refuses a device, since the file is replaced as a whole."""
    photos(1)
    Path("device").symlink_to("/dev/null")
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "--metrics-file", "device")
    assert done.returncode == 2
    assert "is a device" in done.stderr
    assert Path("device").is_symlink()


def test_a_missing_package_is_named_with_its_extra(photos: Photos, endpoint: Endpoint) -> None:
    """Without prometheus_client --metrics-file exits 2 and names the extra, and other runs work."""
    photos(1)
    Path("prometheus_client.py").write_text("raise ImportError('as if it were not there')")
    asked = ["run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url]
    done = run(*asked, "--metrics-file", "m.prom", PYTHONPATH=str(Path.cwd()))
    assert done.returncode == 2
    assert 'pip install "vlmbatch[metrics]"' in done.stderr
    assert run(*asked, PYTHONPATH=str(Path.cwd())).returncode == 0
