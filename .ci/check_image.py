"""Does the steps of deploy/Dockerfile without Docker, and checks what the image would have.

Folders such as /opt/vlmbatch become folders of a temporary one. Then the command answers, the packages of all
extras can be imported, and the health check tells a service that is up from one that is down.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from endpoint import Endpoint
from waiting import until

ROOT = Path(__file__).parents[1]
MOVED = re.compile(r"(?<![\w.])/(?=(?:opt/vlmbatch|build)\b)")
EXTRAS = "cykooz_resizer, fastapi, fsspec, limits, pillow_heif, prometheus_client, redis, rq, uvicorn"


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The name and the words of each instruction."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(str.strip, lines.splitlines()):
        name, _, words = line.partition(" ")
        yield name, words.strip()


def context(goal: Path) -> None:
    """Copy what .dockerignore lets into the build."""
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for name in (line[1:] for line in lines if line.startswith("!")):
        (goal / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, goal / name, ignore=lambda _, names: _matching(names, left_out))
        else:
            shutil.copy(ROOT / name, goal / name)


def _matching(names: list[str], patterns: list[str]) -> set[str]:
    return {name for name in names for pattern in patterns if fnmatch(name, pattern)}


def build(text: str, top: Path) -> None:
    """Do the instructions of the first stage below `top`, with the Python of this process."""
    stages = text.split("\nFROM ")
    tools = top / "bin"
    tools.mkdir()
    (tools / "python").symlink_to(sys.executable)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    folder = top
    for name, words in instructions(stages[2]):
        moved = MOVED.sub(f"{top}/", words)
        if name == "WORKDIR":
            folder = Path(moved)
            folder.mkdir(parents=True)
        elif name == "ENV":
            env |= dict(word.split("=", 1) for word in shlex.split(moved))
        elif name == "COPY":
            *sources, goal = moved.split()
            for source in (top / "context" / source for source in sources):
                if source.is_dir():
                    shutil.copytree(source, folder / goal)
                else:
                    shutil.copy(source, folder / goal)
        elif name == "RUN":
            subprocess.run(["sh", "-ec", moved], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)


def health_check(text: str) -> list[str]:
    """The command of the health check."""
    (words,) = (words for name, words in instructions(text) if name == "HEALTHCHECK")
    command: list[str] = json.loads(words.partition("CMD ")[2])
    return command


def main() -> None:
    """Build, and check the command, the packages and the health check."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    with tempfile.TemporaryDirectory() as folder, Endpoint() as endpoint:
        top = Path(folder)
        context(top / "context")
        build(text, top)
        env = {"PATH": f"{top}/opt/vlmbatch/bin:/usr/bin:/bin", "HOME": folder, "OLLAMA_HOST": endpoint.url}
        subprocess.run(["vlmbatch", "--version"], env=env, cwd=folder, check=True)
        subprocess.run(["python", "-c", f"import {EXTRAS}"], env=env, cwd=folder, check=True)
        check_service(health_check(text), env, top)
    print("the steps of deploy/Dockerfile work, and so does its health check")


def check_service(command: list[str], env: dict[str, str], folder: Path) -> None:
    """The health check passes while the service runs, and fails once it has ended."""
    log = folder / "serve.log"
    words = ["vlmbatch", "serve", "--port", "0", "--backend", "ollama", "--model", "tiny-vision"]
    with log.open("w") as stderr, subprocess.Popen(words, env=env, cwd=folder, stderr=stderr) as service:
        try:
            until(lambda: "serving " in log.read_text() or service.poll() is not None)
            port = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())
            assert port, log.read_text()
            env = {**env, "VLMBATCH_PORT": port[1]}
            assert subprocess.run(command, env=env, check=False).returncode == 0, log.read_text()
        finally:
            service.terminate()
    done = subprocess.run(command, env=env, check=False, stderr=subprocess.DEVNULL)
    assert done.returncode == 1, "the health check passes although the service has ended"


if __name__ == "__main__":
    main()
