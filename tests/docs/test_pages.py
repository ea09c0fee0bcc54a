"""The pages in docs/ match the program: fields, kinds of error, recipes and the picture."""

import asyncio
import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from command import run
from documents import ROOT, blocks, jq_recipes, page, section, table
from endpoint import Endpoint
from written_results import ENDPOINT, answered, failed, lines_of_runs, write

from vlmbatch.backends.classify.rows import REPLIES
from vlmbatch.config import RunConfig
from vlmbatch.errors import BackendError, FailureKind, FatalBackendError
from vlmbatch.images import ImageFacts
from vlmbatch.pipeline.fingerprint import answer_settings
from vlmbatch.records import Completion, Fallback
from vlmbatch.writers.stream import with_prompt_text

PROMPT = "Name the objects \u732b."
RECORDS = page("docs/records.md")
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
JQ = list(dict.fromkeys(recipe for name in PAGES for recipe in jq_recipes(page(name))))
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def keys(record: dict[str, Any]) -> Iterator[str]:
    """All keys of a record; keys of nested objects have a dot."""
    for key, value in record.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in value)


def test_the_table_of_fields_matches_real_records() -> None:
    """docs/records.md lists each key of a record once and no other, with top-level keys in their order."""
    listed = [row[0] for row in table(section(RECORDS, "## Fields"))]
    real = [list(keys(result.to_record())) for result in (answered("a"), failed("b"))]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(real[0]) | set(real[1])
    assert [key for key in listed if "." not in key] == [key for key in real[0] if "." not in key]


def test_the_keys_of_reused_answers_are_listed() -> None:
    """docs/records.md lists the keys that only reused answers have, and no other."""
    listed = [row[0] for row in table(section(RECORDS, "## Reused answers"))]
    plain = answered("a").to_record()
    known = [answered("a", duplicate_of="b").to_record(), answered("a", cached=True).to_record()]
    assert listed == [key for record in known for key in record if key not in plain]


def test_the_keys_of_a_fallback_are_listed() -> None:
    """docs/records.md lists the keys that only answers of a fallback have, and no other."""
    listed = [row[0] for row in table(section(RECORDS, "## Answers of a fallback"))]
    why = Fallback(reason="rejected", kind="refused", message="no", backend="b", endpoint="e", model="m")
    record = replace(answered("a"), fallback=why).to_record()
    plain = set(keys(answered("a").to_record()))
    assert listed == [key for key in keys(record) if key not in plain]


def test_the_key_of_several_images_is_told() -> None:
    """docs/records.md lists the key that only records about several images have; its first one is `image`."""
    listed = [row[0] for row in table(section(RECORDS, "## Several images in one question"))]
    plain = answered("a")
    record = replace(plain, more_images=(ImageFacts(width=7),)).to_record()
    assert listed == [key for key in record if key not in plain.to_record()]
    assert record["images"][0] == record["image"]


def test_the_key_of_records_in_a_pipe_is_listed() -> None:
    """docs/records.md lists the key that only records in a pipe have, and each key of a line of FILE.runs."""
    text = section(RECORDS, "## The prompt and the settings of a record")
    (shown,) = (json.loads(block) for block in blocks(text, "jsonl"))
    plain = answered("a").to_record()
    piped = with_prompt_text(plain, "Describe this image.")
    assert [row[0] for row in table(text)] == [*shown, *(key for key in piped if key not in plain)]


def test_the_example_of_a_run_has_the_keys_of_a_real_line(captions: Path) -> None:
    """The line of FILE.runs that is shown has all keys of a real line in their order, and real settings."""
    (shown,) = (json.loads(block) for block in blocks(RECORDS, "jsonl"))
    (real,) = lines_of_runs(captions)
    assert (list(shown), list(shown["settings"])) == (list(real), list(real["settings"]))
    assert shown["prompts"]["default"] == shown["settings"]["prompt"]


def test_the_key_of_the_cost_is_told() -> None:
    """docs/records.md lists the key that only records have whose cost is known."""
    listed = [row[0] for row in table(section(RECORDS, "## What an answer cost"))]
    record = replace(answered("a"), cost=0.5).to_record()
    assert listed == [key for key in record if key not in answered("a").to_record()]


def test_the_table_is_right_about_null() -> None:
    """A field is null in the record of an answer or a failure only if the table allows it."""
    nulls = {row[0]: row[3] for row in table(section(RECORDS, "## Fields"))}
    for result in (answered("a"), failed("b")):
        record = result.to_record()
        for key, when in nulls.items():
            outer, _, inner = key.partition(".")
            value = (record[outer] or {}).get(inner, ...) if inner else record[outer]
            if when.startswith("never"):
                assert value is not None, key
            elif when == "`status` is `ok`":
                assert (value is None) is result.ok, key
            elif when == "`status` is `error`":
                assert (value is None) is not result.ok, key


def test_the_examples_have_the_keys_of_real_records() -> None:
    """The two records shown have all keys of real records, in their order, and the same status."""
    shown = [json.loads(block) for block in blocks(RECORDS, "json")]
    for example, result in zip(shown, (answered("a"), failed("b")), strict=True):
        assert list(keys(example)) == list(keys(result.to_record()))
        assert example["status"] == result.to_record()["status"]


def test_every_kind_of_error_has_its_row() -> None:
    """docs/records.md lists each kind once and no other."""
    listed = [row[0] for row in table(section(RECORDS, "## Kinds of error"))]
    assert sorted(listed) == sorted(get_args(FailureKind))


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: row.name)
def test_the_page_is_right_about_retries(row: Any) -> None:
    """For every reply in the table of classify, the page says whether the next run retries it."""
    said = {cells[0]: cells[2] for cells in table(section(RECORDS, "## Kinds of error"))}
    error: type[BackendError] = row.error
    if issubclass(error, FatalBackendError):
        assert said[row.kind] == "ends the run"
    else:
        assert said[row.kind] == ("yes" if error.retryable else "no")


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """captions.jsonl with answers and failures, one image sent twice, and one name with odd bytes.

    Its runs are described next to it.
    """
    seen = ImageFacts(sha256="ab" * 32, bytes=9, mtime=1.5, width=4, height=3)
    fields = {"tags": ["cat", "grey"], "short": "A cat", "long": "A grey cat.", "text": ""}
    cat = Completion(text="A cat \u732b.", model="llava:7b", finish_reason="stop", data=fields)
    results = [
        failed("b.jpg", retryable=True),
        replace(answered("a, b\tc.jpg", 'She said "hi"\nand left.'), image=seen),
        replace(answered("b.jpg", warnings=("asked again with seed 1",)), completion=cat, image=seen),
        failed("caf\udce9.jpg"),
    ]
    (tmp_path / "train").mkdir()  # a recipe of docs/captions.md writes into it
    path = tmp_path / "captions.jsonl"
    settings = answer_settings(RunConfig.of("photos"), ENDPOINT, PROMPT)
    asyncio.run(write(path, results, settings=settings))
    return path


@needs_jq
@pytest.mark.parametrize("recipe", JQ)
def test_each_jq_recipe_runs(recipe: str, captions: Path) -> None:
    """Every jq command of all pages runs unchanged and prints something."""
    for name in set(re.findall(r"[\w-]+\.jsonl\b", recipe)) - {captions.name}:
        shutil.copy(captions, captions.with_name(name))
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", recipe], cwd=captions.parent, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip()


@needs_jq
def test_the_recipe_for_the_prompt_shows_it(captions: Path) -> None:
    """The recipe shows for each record the exact prompt that its run has sent."""
    recipe = next(line for line in JQ if "captions.jsonl.runs" in line)
    done = subprocess.run(["bash", "-c", recipe], cwd=captions.parent, capture_output=True, check=True)
    assert [line.split(b"\t")[-1].decode() for line in done.stdout.splitlines()] == [PROMPT] * 4


@needs_jq
def test_the_recipe_for_the_last_line_keeps_it(captions: Path) -> None:
    """The recipe returns an image that failed and was answered later once, with its answer."""
    recipe = next(line for line in JQ if "reduce inputs" in line and "tojson" in line)
    done = subprocess.run(["bash", "-c", recipe], cwd=captions.parent, capture_output=True, check=True)
    kept = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["id"], r["status"]) for r in kept if r["id"] == "b.jpg"] == [("b.jpg", "ok")]
    assert len(kept) == 3


def words(svg: str) -> str:
    """The text in a picture, without spaces and the characters of the bar."""
    assert "@font-face" not in svg
    assert not re.search(r"url\(['\"]?(?!#)|@import|href=|<script", svg), "the picture must fetch nothing"
    text = "".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    return re.sub(r"&#160;|\s|\u2501|\u2578|\u257a", "", text)


def test_the_picture_of_the_terminal_shows_the_bar() -> None:
    """docs/terminal.svg has the text that answers and bar draw, and no links. To refresh: just docs."""
    made = runpy.run_path(str(ROOT / "docs" / "make_terminal_svg.py"))["picture"]()
    shown = words(page("docs/terminal.svg"))
    assert shown == words(made), "docs/terminal.svg is old; run: just docs (python docs/refresh.py)"
    for said in ("vlmbatchrunsamples", "samples/hard-cmyk.jpg", "warning:", "recordsarenotkept"):
        assert said in shown
    for said in ("33%", "ok", "failed", "images/s", "tokens/s", "ETA", "endpointup"):
        assert said in shown


def test_the_index_leads_to_every_page() -> None:
    """docs/index.md links to each page of the folder, and no page has been forgotten."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)", page("docs/index.md")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def test_a_summary_has_the_keys_of_the_page(photos: Callable[..., Path], endpoint: Endpoint) -> None:
    """docs/unattended.md shows all keys of a real summary in their order, and explains no other."""
    photos(1)
    options = ("-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", "--summary", "summary.json")
    assert run("run", "photos", "-q", *options).returncode == 0
    real = json.loads(Path("summary.json").read_text())
    text = section(page("docs/unattended.md"), "## The summary")
    (shown,) = (json.loads(block) for block in blocks(text, "json"))
    assert list(shown) == list(real)
    assert {name for row in table(text) for name in re.findall(r"\w+", row[0])} <= set(real)
