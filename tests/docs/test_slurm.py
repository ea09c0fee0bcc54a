"""The Slurm script of docs/unattended.md works with the real command, and stand-ins for Slurm and vLLM."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import records, run, start
from documents import blocks, page
from endpoint import Endpoint, Model
from slurm import FIRST_PORT, free_job, put_stand_ins

(SCRIPT,) = [block for block in blocks(page("docs/unattended.md"), "sh") if "#SBATCH" in block]


@pytest.fixture
def job(photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Endpoint]]:
    """The number of a job and its server, in a folder with two photos, the script and the stand-ins."""
    photos(2)
    Path("folders.txt").write_text("photos\nother\n")
    Path("job.sh").write_text(SCRIPT)
    put_stand_ins(monkeypatch)
    number = free_job()
    with Endpoint(models={"qwen": Model(vision=True)}, port=FIRST_PORT + number) as server:
        yield number, server


def test_a_job_at_its_time_limit_is_queued_again_and_goes_on(job: tuple[int, Endpoint]) -> None:
    """SIGTERM to the script ends the run with 143 and queues the job again, which then does the rest."""
    number, server = job
    variables = {"SLURM_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": "1"}
    server.script = ["held"] * 8
    running = start(command=("bash", "job.sh"), variables=variables)
    server.until(lambda: bool(server.questions))
    running.send_signal(signal.SIGTERM)
    server.script, server.released = [], True
    assert running.wait(timeout=240) == 128 + signal.SIGTERM
    assert Path("requeued").read_text() == f"requeue {number}\n"

    done = run(command=("bash", "job.sh"), SLURM_RESTART_COUNT="1", **variables)
    assert done.returncode == 0, done.stderr
    lines = records(Path("captions-1.jsonl").read_text())
    assert sorted(line["id"] for line in lines) == ["photos/p0000.jpg", "photos/p0001.jpg"]
    assert len(Path("requeued").read_text().splitlines()) == 1


def test_a_job_that_never_works_is_not_queued_for_ever(job: tuple[int, Endpoint]) -> None:
    """A wrong folder is not queued again, and neither is any end after twenty restarts."""
    number, server = job
    variables = {"SLURM_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": "2"}
    assert run(command=("bash", "job.sh"), **variables).returncode == 2
    assert not Path("requeued").exists()

    server.script = ["held"] * 8
    variables |= {"SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": "20"}
    running = start(command=("bash", "job.sh"), variables=variables)
    server.until(lambda: bool(server.questions))
    running.send_signal(signal.SIGTERM)
    server.script, server.released = [], True
    assert running.wait(timeout=240) == 128 + signal.SIGTERM
    assert not Path("requeued").exists()
