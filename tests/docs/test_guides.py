"""The scripts of the guides work on the records of a real run; each Python block of a guide is tested."""

import asyncio
import csv
import html
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command import run
from documents import ROOT, blocks, page, section
from endpoint import Endpoint, Model
from PIL import Image
from running import ran

GUIDES = {"docs/captions.md": "train", "docs/archives.md": "archive", "docs/alt-text.md": "photos"}
TOLD_ELSEWHERE = {
    "docs/api.md",
    "docs/python.md",
    "docs/service.md",
    "docs/structured-answers.md",
    "docs/decisions.md",
}
SCRIPT_IN_ANSWER = 'A <script>alert("x")</script> cat'

Pictures = Callable[[str], Path]


def script(name: str, heading: str = "") -> CompletedProcess[str]:
    """The only Python block of the page, or below this heading of it, typed into a file and run."""
    text = section(page(name), heading) if heading else page(name)
    (block,) = blocks(text, "python")
    Path("example.py").write_text(block, encoding="utf-8")
    done = run("example.py", command=(sys.executable, "-W", "error"))
    assert (done.returncode, done.stderr) == (0, "")
    return done


def made(folder: str, answer: str, **options: object) -> None:
    """Write the records of a real run over this folder."""
    with Endpoint(models={"qwen2.5vl": Model(vision=True)}, answer=lambda _: answer) as endpoint:
        done = asyncio.run(ran(folder, backend="ollama", base_url=endpoint.url, **options))
    assert done.error is None, done.error


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Makes a folder with two pictures and a broken file in the working folder of the test."""
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        Image.new("RGB", (64, 48), "grey").save(folder / "cat.jpg")
        Image.new("RGB", (64, 48), "teal").save(folder / "dog.jpg")
        (folder / "half.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:300])
        return folder

    return make


def test_each_python_block_of_a_guide_is_tested() -> None:
    """Only the guides of this file, and pages with tests of their own, have Python blocks."""
    names = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert {name for name in names if blocks(page(name), "python")} - TOLD_ELSEWHERE == set(GUIDES)


def test_captions_become_text_files(pictures: Pictures) -> None:
    """Each answered picture gets a text file with the trigger word and its caption on one line."""
    pictures("train")
    made("train", "A grey cat\nin a window.", output="captions.jsonl")
    assert script("docs/captions.md").stdout == "2 text files written, 0 kept as they were\n"
    written = {path.name: path.read_text() for path in Path("train").glob("*.txt")}
    assert written == dict.fromkeys(("cat.txt", "dog.txt"), "sks style, A grey cat in a window.\n")


def test_captions_by_hand_are_kept(pictures: Pictures) -> None:
    """A text file that exists is kept, and a picture that would share a text file or is gone is named."""
    folder = pictures("train")
    Image.new("RGB", (64, 48), "red").save(folder / "dog.png")
    Image.new("RGB", (64, 48), "blue").save(folder / "gone.png")
    (folder / "cat.txt").write_text("my own caption")
    made("train", "A grey cat.", output="captions.jsonl", concurrency="1")
    (folder / "gone.png").unlink()
    told = script("docs/captions.md").stdout.splitlines()
    assert (folder / "cat.txt").read_text() == "my own caption"
    assert told[-1] == "1 text files written, 1 kept as they were"
    assert any("dog.txt belongs to dog." in line for line in told)
    assert any(line.endswith("gone.png does not exist any more") for line in told)
    assert not (folder / "gone.txt").exists()


def test_changed_and_missing_files_of_an_archive_are_found(pictures: Pictures) -> None:
    """The script for provenance names a file that has changed and a file that is gone, and no other."""
    folder = pictures("archive")
    made("archive", "A cat.", output="archive.jsonl")
    assert script("docs/archives.md", "## Provenance").stdout == "3 files compared\n"
    with (folder / "cat.jpg").open("ab") as file:
        file.write(b"\0")
    (folder / "dog.jpg").unlink()
    told = script("docs/archives.md", "## Provenance").stdout.splitlines()
    assert sorted(told[:-1]) == ["archive/cat.jpg has changed", "archive/dog.jpg is missing"]


def test_the_table_of_an_archive_has_one_row_for_each_scan(pictures: Pictures) -> None:
    """The last record of a scan counts, each field of the schema has a column, and no cell is a formula."""
    pictures("archive")
    (schema,) = blocks(page("docs/archives.md"), "json")
    answer = {"text": "=1+1", "kind": "map", "date": None, "place": "Müller"}
    made("archive", json.dumps(answer, ensure_ascii=False), schema=schema, output="archive.jsonl")
    with Path("archive.jsonl").open("r+") as file:
        first = json.loads(file.readline())
        file.seek(0, 2)
        file.write(json.dumps(first | {"run": "later"}) + "\n")
    assert script("docs/archives.md", "## A table for a spreadsheet").stdout == "3 rows\n"
    with Path("archive.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {f"archive/{name}.jpg" for name in ("cat", "dog", "half")}
    expected = {"status": "ok", "text": "'=1+1", "kind": "map", "date": "", "place": "Müller", "error": ""}
    assert rows["archive/cat.jpg"].items() >= expected.items()
    assert rows[first["id"]]["run"] == "later"
    assert rows["archive/half.jpg"]["error"].startswith("the JPEG is truncated")
    assert "response" not in rows["archive/cat.jpg"]


def test_the_further_pages_of_an_archive_become_pictures(pictures: Pictures) -> None:
    """The second page of a TIFF is saved below pages, and the first page and other pictures are not."""
    folder = pictures("archive")
    first, second = (Image.new("RGB", (64, 48), colour) for colour in ("red", "blue"))
    first.save(folder / "a letter.tif", save_all=True, append_images=[second])
    made("archive", "A cat.", output="archive.jsonl")
    assert script("docs/archives.md", "## Pages of PDF and TIFF").stdout == "pages/archive/a letter.tif\n"
    (saved,) = (path for path in Path("pages").rglob("*") if path.is_file())
    assert saved == Path("pages/archive/a letter.tif/page-002.tif")
    with Image.open(saved) as picture:
        assert (getattr(picture, "n_frames", 1), picture.getpixel((0, 0))) == (1, (0, 0, 255))


def test_the_page_for_review_escapes_answers(pictures: Pictures) -> None:
    """Alt texts fit the schema of the page, and HTML in an answer is shown as text."""
    pictures("photos")
    (schema,) = blocks(page("docs/alt-text.md"), "json")
    answer = json.dumps({"text": "", "long": SCRIPT_IN_ANSWER, "short": SCRIPT_IN_ANSWER})
    made("photos", answer, schema=schema, output="alt.jsonl")
    assert script("docs/alt-text.md").stdout.startswith("open review.html")
    shown = Path("review.html").read_text(encoding="utf-8")
    assert "<script" not in shown
    assert shown.count(html.escape(SCRIPT_IN_ANSWER)) == 4
    assert "the JPEG is truncated" in shown


def test_an_alt_text_that_is_too_long_is_a_failure(pictures: Pictures) -> None:
    """With the schema of the page, an answer of more than 125 characters gets no text."""
    pictures("photos")
    (schema,) = blocks(page("docs/alt-text.md"), "json")
    answer = json.dumps({"text": "", "long": "", "short": "cat " * 40})
    made("photos", answer, schema=schema, output="alt.jsonl")
    records = [json.loads(line) for line in Path("alt.jsonl").read_text().splitlines()]
    kinds = {record["id"]: record["error"]["kind"] for record in records}
    assert kinds == {
        "photos/cat.jpg": "bad_schema",
        "photos/dog.jpg": "bad_schema",
        "photos/half.jpg": "bad_image",
    }
