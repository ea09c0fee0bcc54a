"""deploy/systemd and deploy/slurm: systemd accepts the units, and the script works with the real command."""

import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import records, run, start
from documents import ROOT, page
from endpoint import Endpoint, Model, Received
from redis_server import RedisServer
from slurm import FIRST_PORT, free_job, put_stand_ins

UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
PROGRAM = "/opt/vlmbatch/bin/vlmbatch"
SCRIPT = page("deploy/slurm/vlmbatch.sbatch")
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct-AWQ"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """systemd-analyze finds no mistake in a unit, if the command is where the units expect it."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    names = [str(tmp_path / unit.name).replace("@.", "@1.") for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_command_of_a_unit_is_valid(unit: Path) -> None:
    """vlmbatch accepts the options of each unit, which runs as a user of its own with few rights."""
    lines = dict(
        line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    program, *words = shlex.split(lines["ExecStart"])
    assert program == PROGRAM
    done = run(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert lines["User"] == "vlmbatch"
    assert lines["NoNewPrivileges"] == "yes"
    assert lines["CapabilityBoundingSet"] == ""
    assert int(lines["TimeoutStopSec"]) > 30  # --drain


def test_a_worker_outlives_a_night_without_its_engine() -> None:
    """systemd starts a worker again and again: a worker whose engine or Redis is down ends after seconds."""
    unit = page("deploy/systemd/vlmbatch-worker@.service").splitlines()
    assert {"Restart=always", "StartLimitIntervalSec=0"} <= set(unit)
    assert not any(line.startswith("StartLimitBurst") for line in unit)


@pytest.fixture
def job(photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Endpoint]]:
    """The number of a job and its engine, in a folder with two photos, the script and the stand-ins."""
    photos(2)
    Path("job.sh").write_text(SCRIPT)
    put_stand_ins(monkeypatch)
    number = free_job()
    models = {MODEL: Model(vision=True), "qwen2.5vl:7b": Model(vision=True)}
    with Endpoint(models=models, port=FIRST_PORT + number) as server:
        yield number, server


def held(request: Received) -> str:
    """Holds the questions of the run; those of doctor come before it has a lock."""
    return "held" if Path("captions.jsonl.lock").exists() else "ok"


@pytest.mark.long
def test_a_job_stops_at_its_time_limit_and_goes_on(job: tuple[int, Endpoint]) -> None:
    """SIGTERM ends the run with 143 and queues the job again, which answers the rest and ends its engine."""
    number, server = job
    words = ("bash", "job.sh", "run", "photos", "-o", "captions.jsonl")
    variables = {"SLURM_JOB_ID": str(number)}
    server.script = held
    running = start(command=words, variables=variables)
    server.until(lambda: any(question.mode == "held" for question in server.questions))
    running.send_signal(signal.SIGTERM)
    server.script, server.released = [], True
    assert running.wait(timeout=240) == 128 + signal.SIGTERM
    assert Path("requeued").read_text() == f"requeue {number}\n"

    done = run(command=words, SLURM_RESTART_COUNT="1", **variables)
    assert done.returncode == 0, done.stderr
    lines = records(Path("captions.jsonl").read_text())
    assert sorted(line["id"] for line in lines) == ["photos/p0000.jpg", "photos/p0001.jpg"]
    assert len(Path("requeued").read_text().splitlines()) == 1
    assert Path("served").read_text().startswith(f"serve {MODEL} --host 127.0.0.1 ")


@pytest.mark.long
def test_a_mistake_is_not_queued_again(job: tuple[int, Endpoint]) -> None:
    """A wrong folder, and an engine that the script does not know, end the job with exit code 2 for good."""
    variables = {"SLURM_JOB_ID": str(job[0])}
    words = ("bash", "job.sh", "run", "other")
    assert run(command=words, ENGINE="ollama", **variables).returncode == 2
    assert Path("served").read_text() == "serve\n"
    done = run(command=words, ENGINE="vlm", **variables)
    assert (done.returncode, done.stderr) == (2, "ENGINE=vlm is not known; write vllm or ollama\n")
    assert not Path("requeued").exists()


@pytest.mark.long
def test_workers_of_a_job_end_with_the_queue(job: tuple[int, Endpoint]) -> None:
    """The script starts a worker for the queue of its variables, and ends with it once no job waits."""
    with RedisServer(Path.cwd()) as redis:
        variables = {"VLMBATCH_QUEUE": redis.url, "VLMBATCH_STORE": str(Path.cwd() / "store")}
        done = run(
            command=("bash", "job.sh", "worker", "--until-empty"), SLURM_JOB_ID=str(job[0]), **variables
        )
    assert done.returncode == 0, done.stderr
    assert not Path("requeued").exists()
