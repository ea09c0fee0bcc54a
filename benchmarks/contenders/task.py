"""What all contenders share: the same images, prompt, model and options, and how each measures itself.

It knows nothing of how they ask.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

PROMPT = "Describe this image."
MAX_TOKENS = 512
TEMPERATURE = 0.0
MAX_SIZE = 1024
QUALITY = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """All images below a folder are to be asked about, so many at once; a line each goes to `output`.

    `wire` is what the endpoint at `url` speaks: ollama or openai. `as_is` leaves images unprepared,
    `as_bytes` leaves base64 to the client package.
    """

    folder: Path
    output: Path
    url: str
    wire: str
    model: str
    concurrency: int
    as_is: bool
    as_bytes: bool

    @property
    def files(self) -> list[Path]:
        """The images, found as most scripts do it."""
        return sorted(self.folder.rglob("*.jpg"))

    @property
    def openai_url(self) -> str:
        """Where the openai package finds the endpoint."""
        return f"{self.url}/v1"


def line(file: Path, text: str | None) -> str:
    """A record as the contenders write it."""
    return json.dumps({"image": str(file), "response": text}) + "\n"


def main(ask: Callable[[Task], None]) -> None:
    """Ask about all images, and print what it took as JSON.

    With `--warm FOLDER` it first asks about the images there, so that what libraries load and set up when
    they are first used is not counted. It counts user and system time of this process, and nothing of the
    start of Python and of imports.
    """
    task, warm = _options()
    if warm:
        ask(replace(task, folder=warm, output=task.output.with_suffix(".warm")))
    cpu, began = _cpu_s(), time.monotonic()
    ask(task)
    cpu, wall = _cpu_s() - cpu, time.monotonic() - began
    with task.output.open() as lines:
        print(json.dumps({"images": sum(1 for _ in lines), "cpu_s": cpu, "wall_s": wall}))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _options() -> tuple[Task, Path | None]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--wire", choices=("ollama", "openai", "vllm"), default="ollama")
    parser.add_argument("--model", default="slots")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--as-is", action="store_true")
    parser.add_argument("--as-bytes", action="store_true")
    parser.add_argument("--warm", type=Path)
    given = vars(parser.parse_args())
    warm = given.pop("warm")
    return Task(**given), warm
