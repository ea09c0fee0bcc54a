"""`vlmbatch bench`: its table, its conclusion, its warnings, its plot and its exit codes."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import start
from endpoint import Endpoint, Model
from inside import called
from terminal import Terminal
from waiting import until

from vlmbatch.cli.bench_plot import check_plot, plot_report
from vlmbatch.cli.bench_view import as_object, conclusion, table, warnings
from vlmbatch.commands.bench import Level, Report
from vlmbatch.errors import MissingDependencyError, OutputError
from vlmbatch.records import Endpoint as FoundEndpoint

SHORT = ("--seconds", "0.05", "--warm-up", "0")
PLACE = FoundEndpoint(backend="vllm", url="http://gpu1:8000/v1", model="a$b$ <model>")


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    return called("bench", *args)


def messages(stderr: str) -> list[str]:
    """The lines of standard error, but for warnings that this machine is too busy to measure."""
    return [line for line in stderr.splitlines() if "so it may be the limit and not the endpoint" not in line]


def report(*levels: Level, is_open: bool = False) -> Report:
    return Report(is_open=is_open, planned=len(levels), endpoint=PLACE, levels=list(levels))


def measured(load: float, rate: float, **more: Any) -> Level:
    return Level(
        load=load, requests_per_s=rate, answered=9, p50_s=0.25, p90_s=0.5, p99_s=1.5, max_s=2.0, **more
    )


def test_a_table_and_a_conclusion(endpoint: Endpoint) -> None:
    """Each level has a row, the last line says what to type, and there are no other messages."""
    done = bench(endpoint.url, "-m", "tiny-vision", "--levels", "1,2", *SHORT)
    assert (done.returncode, messages(done.stderr)) == (0, [])
    title, _, head, first, second, _, said = done.stdout.splitlines()
    assert title == f"tiny-vision at {endpoint.url}"
    assert head.split("  ")[0] == "AT ONCE"
    assert (first.split()[0], second.split()[0]) == ("1", "2")
    assert "--concurrency" in said


def test_the_results_as_json(endpoint: Endpoint) -> None:
    """--json prints one object, in which each request of a level is answered, refused or failed by kind."""
    endpoint.script = ["ok", "ok", "429", "500", "ok"]
    done = bench(endpoint.url, "-m", "tiny-vision", "--levels", "4", "--json", *SHORT)
    assert done.returncode == 0
    told = json.loads(done.stdout)
    (level,) = told["levels"]
    assert (told["endpoint"], told["model"], told["loop"]) == (endpoint.url, "tiny-vision", "closed")
    assert (told["knee"], level["load"]) == (4, 4)
    assert (level["refused"], level["failures"]) == (1, {"server_error": 1})
    assert level["answered"] == len(endpoint.questions) - 3
    assert told["notes"] == [line.removeprefix("vlmbatch: ") for line in done.stderr.splitlines()]
    assert "4 requests at once: not answered: 1 server_error, 1 refused as too busy" in done.stderr


@pytest.mark.parametrize("named", ["", "/v1"])
def test_any_server_of_openais_form(named: str) -> None:
    """A server that only speaks OpenAI's form is found by its URL, with and without /v1, and gets the key."""
    with Endpoint(speaks=("openai",), owned_by="vlmbatch", api_key="k-1") as endpoint:
        backend = ("--backend", "openai") if named else ()
        done = bench(
            *(endpoint.url + named, *backend, "--api-key", "k-1"),
            *("-m", "tiny-vision", "--rate", "20", *SHORT),
        )
    assert (done.returncode, messages(done.stderr)) == (0, [])
    assert done.stdout.startswith(f"tiny-vision at {endpoint.url}/v1\n")
    assert "SENT/S" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("--levels", "1,x"), 2, "--levels 1,x is not a list of numbers; write for example --levels 1,4,16"),
        (("--rate", "1", "--levels", "1"), 2, "--levels and --rate are both set; keep"),
        (("--plot", "a.png"), 2, "--plot a.png is not an SVG file; write FILE.svg"),
        (("--plot", "nowhere/a.svg"), 2, "there is no folder nowhere; make it, or name another file"),
        (("--images", "nowhere"), 2, "nowhere does not exist; name a folder of images, or an image"),
        (("--images", "empty"), 2, "no image below empty"),
        (("-m", "tiny-visoin"), 2, "has no model 'tiny-visoin'"),
        (("-m", "tiny-text"), 2, "cannot see images"),
    ],
)
def test_what_cannot_be_measured(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    """A wrong flag, path or model ends the command with its message before anything is measured."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    done = bench(endpoint.url, *(() if "-m" in args else ("-m", "tiny-vision")), *args, *SHORT)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert endpoint.questions == []


def test_which_endpoint(endpoint: Endpoint, tmp_path: Path) -> None:
    """A folder is no URL, several --base-url are too many, and URL takes their place."""
    assert f"write --images {tmp_path}" in bench(str(tmp_path)).stderr
    assert "write for example http://gpu1:8000/v1" in bench("gpu1:8000").stderr
    two = ("--base-url", endpoint.url, "--base-url", "http://127.0.0.1:9")
    done = bench(*two, "-m", "tiny-vision")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--base-url names 2; name one of them: vlmbatch bench URL" in done.stderr
    assert bench(endpoint.url, *two, "-m", "tiny-vision", "--levels", "1", *SHORT).returncode == 0


def test_the_rate_of_the_service_is_another_option(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settings file with the rate of `vlmbatch serve` changes nothing here."""
    (tmp_path / "own.toml").write_text('rate = "60/minute"\n')
    monkeypatch.chdir(tmp_path)
    done = bench(endpoint.url, "--config", "own.toml", "-m", "tiny-vision", "--levels", "1", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "AT ONCE" in done.stdout


def test_no_endpoint() -> None:
    """A closed port is exit code 4 with the usual message."""
    done = bench("http://127.0.0.1:9", "-b", "ollama", "--give-up-after", "0.2")
    assert (done.returncode, done.stdout) == (4, "")
    assert "ollama serve" in done.stderr


@pytest.mark.parametrize(("mode", "code"), [("429", 4), ("500", 4), ("400", 2)])
def test_an_endpoint_that_answers_nothing(endpoint: Endpoint, mode: str, code: int) -> None:
    """If no request of the first level is answered, there is no table, and the message says why."""
    endpoint.script = lambda request: mode
    done = bench(endpoint.url, "-m", "tiny-vision", *SHORT)
    assert (done.returncode, done.stdout) == (code, "")
    assert "no request was answered at 1 request at once: the endpoint" in done.stderr
    assert done.stderr.endswith("check the endpoint with: vlmbatch doctor\n")


def test_ctrl_c_shows_what_is_measured() -> None:
    """After Ctrl-C the levels so far are printed, the last one as stopped, and the exit code is 130."""
    with Endpoint() as endpoint:
        endpoint.script = lambda request: "ok" if (request.chat or 0) < 20 else "held"
        running = start(
            *("bench", endpoint.url, "-m", "tiny-vision", "--seconds", "1h", "--warm-up", "0"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        until(lambda: len(endpoint.questions) > 20)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=240)
    assert running.returncode == 130
    row = out.splitlines()[3].split()
    assert (row[0], row[6], row[-1]) == ("1", "19", "stopped")
    assert "the measurement ended before the second level" in out
    assert messages(err) == []


def test_a_terminal_shows_the_level() -> None:
    """On a terminal a line has the level and its counts, until the table takes its place."""
    with Endpoint(script=["ok", "ok", "429", "held"]) as endpoint:
        options = ("-m", "tiny-vision", "--levels", "3", *SHORT)
        with Terminal("bench", endpoint.url, *options, stdout=True, columns=100) as terminal:
            terminal.until(r"level 1 of at most 1, 3 requests at once: [1-9]\d* answered, 1 refused")
            endpoint.released = True
            assert terminal.wait() == 0
            assert not any("of at most" in row for row in terminal.rows)
            assert any("AT ONCE" in row for row in terminal.rows)


def test_the_unit_of_a_table() -> None:
    """A table has milliseconds, or seconds if a latency has ten of them; an unknown one is a dash."""
    fast = table([measured(1, 4.0)], is_open=False)
    assert "P50 ms" in fast[0]
    assert fast[1].split()[2:6] == ["250", "500", "1500", "2000"]
    slow = table([measured(1, 0.05), Level(load=2, max_s=10.0)], is_open=True)
    assert "P50 s" in slow[0]
    assert slow[1].split()[:4] == ["1", "0.050", "0.25", "0.50"]
    assert slow[2].split()[2:6] == ["-", "-", "-", "10.00"]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            report(measured(1, 5), measured(2, 9.8), measured(4, 10)),
            "knee is at 2 requests at once, with 98%",
        ),
        (
            report(measured(1, 5), measured(2, 10)),
            "still grows at 2 requests at once; run with --concurrency 2",
        ),
        (report(measured(1, 5)), "leave --levels out"),
        (report(measured(1, 5), measured(2, 9, is_partial=True)), "before the second level"),
        (
            report(measured(1, 1, offered_per_s=1), measured(4, 2, offered_per_s=4), is_open=True),
            "behind at 4",
        ),
        (report(measured(1, 1, offered_per_s=1), is_open=True), "keeps up with 1 requests/s; try higher"),
        (report(measured(3, 1, offered_per_s=3), is_open=True), "falls behind at 3 requests/s; try lower"),
    ],
)
def test_the_conclusion_says_what_to_type(found: Report, told: str) -> None:
    """The conclusion names the knee or the rate that is kept up, or what to measure next."""
    assert told in conclusion(found)


def test_what_makes_results_doubtful() -> None:
    """A busy or late client and a full queue are warnings; a usual level has none."""
    usual = measured(1, 5, client_cpu=0.9, client_late=0.25)
    assert list(warnings(report(usual))) == []
    busy, late = measured(2, 5, client_cpu=0.95), measured(4, 5, client_late=0.5)
    told = list(warnings(report(usual, busy, late, measured(8, 5, capped=True))))
    assert [line.partition(":")[0] for line in told] == [f"{n} requests at once" for n in (2, 4, 8)]
    assert "95% of a processor core" in told[0]
    assert "late for 50% of the time" in told[1]
    assert "waited in this client" in told[2]
    assert as_object(report(busy))["notes"] == told[:1]


@pytest.mark.parametrize("is_open", [False, True])
def test_the_plot(tmp_path: Path, is_open: bool) -> None:
    """The SVG has the name of the model as it is, the units and the knee, but no level without an answer."""
    path = tmp_path / "a.svg"
    levels = [measured(n, rate, offered_per_s=rate) for n, rate in ((1, 5), (2, 9.8), (4, 10))]
    plot_report(report(*levels, Level(load=77), is_open=is_open), str(path))
    shown = path.read_text()
    for text in (
        "a$b$ &lt;model&gt; under load",
        PLACE.url,
        "latency in seconds",
        "answers per second",
        "p99",
    ):
        assert f">{text}<" in shown
    assert (">keeps up with 4/s<" if is_open else ">knee: --concurrency 2<") in shown
    assert ">77<" not in shown


def test_a_plot_needs_matplotlib_and_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without matplotlib the message has the command that installs it; a folder is no file to write."""
    (tmp_path / "a.svg").mkdir()
    with pytest.raises(OutputError, match="cannot be written: Is a directory; name another file"):
        plot_report(report(measured(1, 5)), str(tmp_path / "a.svg"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "vlmbatch\[plot\]"'):
        check_plot(str(tmp_path / "b.svg"))


def test_the_plot_of_a_measurement(tmp_path: Path) -> None:
    """--plot writes the SVG after the table, and the key of the endpoint is in neither."""
    path = tmp_path / "a.svg"
    with Endpoint(models={"m": Model()}, api_key="s3cret") as endpoint:
        args = (
            endpoint.url,
            "-b",
            "vllm",
            "--api-key",
            "s3cret",
            "--levels",
            "1,2",
            "--plot",
            str(path),
            *SHORT,
        )
        done = bench(*args)
    assert done.returncode == 0, done.stderr
    assert ">m under load<" in path.read_text()
    assert "s3cret" not in path.read_text() + done.stdout + done.stderr
