"""The common part of all contenders: images, prompt, model, options, and how each measures itself.

This module does not know how they send requests.
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
    """The task: send all images below `folder`, `concurrency` at once, and write a line for each to `output`.

    `wire` is the protocol of the endpoint at `url`: ollama or openai. `as_is` leaves images unprepared,
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
        """The images, found as in most scripts."""
        return sorted(self.folder.rglob("*.jpg"))

    @property
    def openai_url(self) -> str:
        """The URL of the endpoint for the openai package."""
        return f"{self.url}/v1"


def line(file: Path, text: str | None) -> str:
    """A record of the contenders."""
    return json.dumps({"image": str(file), "response": text}) + "\n"


def main(ask: Callable[[Task], None]) -> None:
    """Process all images, and print the cost as JSON.

    With `--warm FOLDER` it first processes the images there, so that the first-use set-up of libraries does
    not count. It counts user and system time of this process, without the start of Python and imports.
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
