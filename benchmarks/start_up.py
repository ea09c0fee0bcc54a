"""Claims: `vlmbatch --help` appears at once, and the first record no later than in a plain loop.

CPU and wall milliseconds of `--help`, against bare Python and commands for language or vision models that
install without torch. They are installed into benchmarks/.peers the first time, which takes half a minute.
With --quick only the commands in the environment of this Python are measured.

Also CPU milliseconds of a run over ten small images, and wall milliseconds to its first record, against a
loop with the ollama package.

    python benchmarks/start_up.py [--rounds 5] [--quick]
"""

import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import corpora
import endpoints
from claim import Claim, Effort, Panel, Spread, Table, main, short, times
from measuring import Observed, contender, environment, observe, rounds_of, vlmbatch, workplace

PLACE = Path(__file__).parent / ".peers"
PEERS = ("litellm", "vlmrun")
HERE = ("vlmbatch", "llm")
"""Commands of packages in the environment of this Python; llm comes with the extra bench."""
VLMBATCH = "vlmbatch --help"
MEASURED = """\
User and system time, and wall time, of `--help` until it has ended, in milliseconds. Modules are
compiled and in the page cache, since each command runs once before. {versions}."""
IMAGES, SIZE = 10, (640, 480)
RUN, LOOP = "vlmbatch run", "plain loop: ollama"
FIRST = f"""\
User and system time of a whole run over {IMAGES} images of {SIZE[0]}x{SIZE[1]}, and the wall time from the
start of the process to the first whole line of its output, in milliseconds. The endpoint is a process of its
own on this machine and answers at once, so nearly all of the time is the start of the command. *plain loop*
is benchmarks/contenders/one_by_one.py. It asks one image after the other and checks nothing first."""
Cost = tuple[float, float]


def measure(effort: Effort) -> list[Claim]:
    """Measure the claim."""
    beside = Path(sys.executable).parent
    commands = {"bare Python": [sys.executable, "-c", "pass"]}
    commands |= {
        f"{name} --help": [str(beside / name), "--help"] for name in HERE if (beside / name).exists()
    }
    if VLMBATCH not in commands:
        commands[VLMBATCH] = [sys.executable, "-m", "vlmbatch", "--help"]
    versions = [f"{name} {version(name)}" for name in HERE if f"{name} --help" in commands]
    if not effort.quick:
        versions += _installed()
        commands |= {f"{name} --help": [str(PLACE / "bin" / name), "--help"] for name in PEERS}
    for command in commands.values():
        _cost(command)
    runs: dict[str, Callable[[], Cost]] = {name: partial(_cost, c) for name, c in commands.items()}
    costs = rounds_of(effort.rounds, runs)
    measured = MEASURED.format(versions=", ".join(versions))
    return [_claim(costs, measured, effort.rounds), _first_record(effort)]


def _first_record(effort: Effort) -> Claim:
    """Measure the start of a run over a small folder."""
    with workplace() as folder, endpoints.slots(IMAGES, 0.0) as url:
        photos = corpora.many(folder / "photos", IMAGES, SIZE)
        output = folder / "records.jsonl"
        commands = {
            RUN: vlmbatch(photos, backend="ollama", base_url=url, output=output),
            LOOP: contender("one_by_one", folder=photos, url=url, output=output),
        }

        def run(command: list[str]) -> Observed:
            output.unlink(missing_ok=True)
            return observe(command, output)

        runs = {name: partial(run, command) for name, command in commands.items()}
        for warm in runs.values():
            warm()
        observed = rounds_of(3 * effort.rounds, runs)
    cpu = {name: Spread.of([1000 * each.cpu_s for each in seen]) for name, seen in observed.items()}
    first = {
        name: Spread.of([1000 * (each.first_record_s or each.wall_s) for each in seen])
        for name, seen in observed.items()
    }
    ours = first[RUN].median
    rows = [(name, str(cpu[name]), str(first[name]), short(first[name].median / ours)) for name in commands]
    return Claim(
        name="start-of-a-run",
        title="The start of a run",
        measured=FIRST,
        rounds=3 * effort.rounds,
        ratio=(
            f"The first record comes after {short(ours)} ms, in the plain loop after "
            f"{short(first[LOOP].median)} ms: {times(first[LOOP].median, ours)} as long."
        ),
        tables=(Table(head=("", "CPU ms", "ms to the first record", f"times `{RUN}`"), rows=tuple(rows)),),
        panels=(
            Panel(
                title="First record",
                unit="ms",
                places=tuple(commands),
                series={"": tuple(first[name].median for name in commands)},
            ),
        ),
    )


def _cost(command: list[str]) -> Cost:
    """CPU and wall milliseconds of a command."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return 1000 * (used.ru_utime + used.ru_stime), 1000 * wall


def _installed() -> list[str]:
    """Install the missing peers; returns their names and versions."""
    python = str(PLACE / "bin" / "python")
    if not all((PLACE / "bin" / name).exists() for name in PEERS):
        venv.create(PLACE, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--no-compile", *PEERS], check=True, stdout=sys.stderr
        )
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    told = subprocess.run([python, "-c", ask, *PEERS], check=True, capture_output=True, text=True).stdout
    return [f"{name} {number}" for name, number in zip(PEERS, told.split(), strict=True)]


def _claim(costs: dict[str, list[Cost]], measured: str, rounds: int) -> Claim:
    cpu = {name: Spread.of([cost[0] for cost in runs]) for name, runs in costs.items()}
    wall = {name: Spread.of([cost[1] for cost in runs]) for name, runs in costs.items()}
    names = sorted(costs, key=lambda name: cpu[name].median)
    ours = cpu[VLMBATCH].median
    rows = [(name, str(cpu[name]), str(wall[name]), short(cpu[name].median / ours)) for name in names]
    others = [name for name in names if name not in (VLMBATCH, "bare Python")]
    compared = ", ".join(f"`{name}` {times(cpu[name].median, ours)}" for name in others)
    return Claim(
        name="start-up",
        title="Start-up",
        measured=measured,
        rounds=rounds,
        ratio=f"`{VLMBATCH}` takes {short(ours)} ms of CPU; {compared or 'no other is installed'} as much.",
        tables=(Table(head=("", "CPU ms", "wall ms", f"times `{VLMBATCH}`"), rows=tuple(rows)),),
        panels=(
            Panel(
                title="--help",
                unit="CPU ms",
                places=tuple(names),
                series={"": tuple(cpu[name].median for name in names)},
            ),
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main(measure, rounds=5))
