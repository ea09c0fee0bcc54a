"""What a run says about pages and files that it does not read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from inside import called
from pictures import animation
from running import ran

Photos = Callable[..., Path]
TOLD = "the file has 3 pages or frames; only the first was read"


@pytest.fixture
def shelf(photos: Photos) -> Path:
    """One photo, two equal TIFFs of three pages, and files and a folder that are not read."""
    folder = photos(1)
    for name in ("scan.tif", "copy.tif"):
        (folder / name).write_bytes(animation("TIFF"))
    for name in ("a.pdf", "b.pdf"):
        (folder / name).write_bytes(b"%PDF-1.7")
    (folder / "comic.cbz").write_bytes(b"PK\x03\x04")
    (folder / "notes.txt").write_text("notes")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "thumbnail.jpg").write_bytes((folder / "p0000.jpg").read_bytes())
    (folder / "._p0000.jpg").write_bytes(b"\0\5\x16\7")
    return folder


async def test_pages_that_were_not_read_are_in_record_and_summary(shelf: Path, endpoint: Endpoint) -> None:
    """Each record of a TIFF of three pages warns, also of a duplicate, and the summary counts them."""
    done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision")
    assert done.summary is not None
    told = {result.id: (result.image.frames, TOLD in result.warnings) for result in done.results}
    assert told == {
        "photos/copy.tif": (3, True),
        "photos/p0000.jpg": (1, False),
        "photos/scan.tif": (3, True),
    }
    assert (done.summary.frames, done.summary.duplicates) == (2, 1)
    assert (done.summary.ignored, done.summary.ignored_kinds) == (4, {"PDF": 2, "CBZ": 1})


def test_the_command_names_what_it_did_not_read(shelf: Path, endpoint: Endpoint) -> None:
    """The last line and the summary file name pages, kinds of files and entries that were not read."""
    asking = ("--backend", "ollama", "--base-url", endpoint.url, "--model", "tiny-vision")
    done = run("run", "photos", *asking, "-o", "o.jsonl", "--summary", "s.json", "-q")
    assert done.returncode == 0, done.stderr
    done = run("run", "photos", *asking, "-o", "p.jsonl", "--summary", "s.json")
    assert "2 with several pages or frames (only the first was read)" in done.stderr
    assert "4 other files ignored (2 PDF, 1 CBZ: not read)" in done.stderr
    summary = json.loads(Path("s.json").read_text())
    assert (summary["frames"], summary["ignored_kinds"]) == (2, {"CBZ": 1, "PDF": 2})
    assert "2 hidden or system entries skipped (1 @eaDir, 1 hidden)" in done.stderr
    assert summary["skipped_entries"] == {"@eaDir": 1, "hidden": 1}


def test_a_dry_run_names_what_a_run_would_not_read(shelf: Path) -> None:
    """A dry run counts the same pages and kinds of files."""
    told = called("run", "photos", "--dry-run", "--backend", "ollama").stderr
    assert "2 PDF, 1 CBZ: not read, but may hold images" in told
    assert "images with several pages or frames: 2 (only the first is read)" in told
    assert "2 hidden or system entries skipped (1 @eaDir, 1 hidden)" in told


async def test_a_pdf_that_is_named_says_what_to_do(shelf: Path, endpoint: Endpoint) -> None:
    """A PDF on the command line is a failure that names the command for its pages."""
    done = await ran("photos/a.pdf", backend="ollama", base_url=endpoint.url, model="tiny-vision")
    (result,) = done.results
    assert result.failure is not None
    assert "pdftoppm -r 150 -png FILE.pdf page" in result.failure.message
