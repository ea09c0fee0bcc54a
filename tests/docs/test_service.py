"""docs/service.md: its commands work as they stand there, and its tables match the program."""

import json
import re
import subprocess
import sys
import tomllib
from functools import reduce
from pathlib import Path
from typing import get_args

import pytest
from command import environment
from documents import ROOT, blocks, page, section
from endpoint import Endpoint, Model
from queued import working
from redis_server import RedisServer
from serving import Served
from waiting import until

from vlmbatch.service.fields import LONGEST_PROMPT, MOST_IMAGES, Fields
from vlmbatch.service.problems import STATUS, RequestKind

PAGE = page("docs/service.md")
OF_QUEUE = [section(PAGE, title) for title in ("## Jobs", "## Batches of OpenAI's form")]
EXAMPLES = [
    "\n".join(line for line in block.splitlines() if not line.startswith(("pip ", "vlmbatch ")))
    for block in blocks(reduce(lambda text, part: text.replace(part, ""), OF_QUEUE, PAGE), "sh")
    if "curl" in block
]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_each_curl_example_gets_an_answer(example: str, tmp_path: Path) -> None:
    """The commands of each example, typed where the samples are, are answered."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    with (
        Endpoint(models={"qwen2.5vl": Model(vision=True)}, answer=lambda request: "a cat") as endpoint,
        Served(backend="ollama", base_url=endpoint.url, model="qwen2.5vl") as served,
    ):
        typed = ["bash", "-ec", example.replace("http://127.0.0.1:8000", served.url)]
        done = subprocess.run(
            typed, cwd=tmp_path, capture_output=True, text=True, env=environment(), check=True
        )
        until(lambda: sum(" 200 " in line for line in served.log) == example.count("curl "))
    assert done.stdout.count("a cat") >= example.count("curl ") - example.count("/v1/models")


@pytest.mark.long
def test_the_examples_of_jobs_get_an_answer(tmp_path: Path) -> None:
    """A job is sent, answered by a real worker, and removed, with the commands of the page."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    started, typed = blocks(section(PAGE, "## Jobs"), "sh")
    assert all(f"vlmbatch {command} " in started for command in ("serve", "worker"))
    with (
        RedisServer(tmp_path) as redis,
        Endpoint(answer=lambda request: "a cat") as endpoint,
        Served(endpoint, queue=redis.url, store=str(tmp_path / "store")) as served,
        working(redis.url, tmp_path / "store", endpoint, tmp_path / "log"),
    ):
        typed = typed.replace("http://127.0.0.1:8000", served.url).replace("wait=20", "wait=60")
        done = subprocess.run(
            ["bash", "-ec", typed],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment(),
            check=True,
        )
    answer, removed = map(json.loads, done.stdout.replace("}{", "}\n{").splitlines())
    assert (answer["status"], answer["result"], removed["status"]) == ("complete", "a cat", "complete")


@pytest.mark.long
def test_the_examples_of_batches_get_answers(tmp_path: Path) -> None:
    """The program with the package openai prints an answer for each photo, and so do the lines with curl."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (program,), (typed,) = (blocks(OF_QUEUE[1], kind) for kind in ("python", "sh"))
    with (
        RedisServer(tmp_path) as redis,
        Endpoint(answer=lambda request: "a cat") as endpoint,
        Served(endpoint, queue=redis.url, store=str(tmp_path / "store")) as served,
        working(redis.url, tmp_path / "store", endpoint, tmp_path / "log"),
    ):
        for words in ([sys.executable, "-c", program], ["bash", "-ec", typed]):
            command = words[-1].replace("http://127.0.0.1:8000", served.url)
            done = subprocess.run(
                [*words[:-1], command.replace("qwen2.5vl", "tiny-vision")],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env=environment(),
                check=True,
            )
            lines = [json.loads(line) for line in done.stdout.splitlines() if line]
            answers = {line["custom_id"]: line["response"]["status_code"] for line in lines}
            assert answers == {f"photo-{name}.jpg": 200 for name in ("astronaut", "cat", "coffee")}


def test_the_readme_and_the_page_start_in_three_lines() -> None:
    """The three lines of the README and of the page are the same."""
    first = blocks(section(PAGE, "## Start it"), "sh")[0]
    assert len(first.strip().splitlines()) == 3
    assert first in page("README.md")


def test_the_table_of_failures_has_each_kind_with_its_status() -> None:
    """The table has each kind of failed request that a client can see, with its status."""
    rows = re.findall(r"^\| ([\d, ]+) \| (`.*?`) \|", section(PAGE, "## When a request fails"), re.MULTILINE)
    told = {
        kind: {int(status) for status in statuses.split(", ")}
        for statuses, kinds in rows
        for kind in re.findall(r"`(\w+)`", kinds)
    }
    kinds = {*get_args(RequestKind), "too_large"} - {"client_gone"}
    assert set(told) == kinds
    assert all(STATUS[kind] in told[kind] for kind in kinds)


def test_the_fields_and_numbers_are_those_of_the_program() -> None:
    """The page names each field of a request, and the limits that the program has."""
    table = section(PAGE, "## Ask about an image")
    fields = {field.alias or name for name, field in Fields.model_fields.items()}
    assert all(f"`{name}`" in table for name in fields)
    assert f"at most {MOST_IMAGES}" in table
    assert f"{LONGEST_PROMPT:,} characters" in PAGE


def test_the_example_of_a_keys_file_is_valid() -> None:
    """The file with API keys on the page can be used as it stands there."""
    from vlmbatch.service.keys import keys_in

    (block,) = blocks(PAGE, "toml")
    (key,) = keys_in(block.encode(), "keys.toml")
    assert (key.name, key.concurrent) == ("alice", tomllib.loads(block)["keys"]["alice"]["concurrent"])


def test_the_app_of_the_page_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python block of the page makes an app with the routes of the service."""
    (block,) = blocks(section(PAGE, "## In your own server"), "python")
    made: dict[str, object] = {}
    exec(compile(block, "app.py", "exec"), made)  # our own page
    paths = made["app"].openapi()["paths"]  # type: ignore[attr-defined]
    assert {"/analyze", "/health"} <= paths.keys()
