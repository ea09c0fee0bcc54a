"""Runs over folders that hold no image, such as an unmounted disk: exit codes, messages, and what stays."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from file_runs import asking
from running import ran

from vlmbatch.events import Notice

Photos = Callable[..., Path]
CLOSED = ("-b", "ollama", "--base-url", "http://127.0.0.1:9", "--give-up-after", "2h")
UNMOUNTED = (
    "vlmbatch: no image below mnt: 0 files. Perhaps a disk is not mounted. "
    "If the folders may be empty, such as an inbox, add --allow-empty\n"
)
OF_SEVERAL = "no image below mnt; perhaps a disk is not mounted (--allow-empty hides this message)"


@pytest.fixture
def mnt(photos: Photos) -> Path:
    """An empty folder mnt beside an empty folder photos."""
    mnt = photos(0).parent / "mnt"
    mnt.mkdir()
    return mnt


def test_an_unmounted_folder_exits_2(mnt: Path) -> None:
    """An empty PATH exits 2 at once, also with -q and an endpoint that is down, and leaves no output file."""
    done = run("run", "mnt", "-q", "-o", "f.jsonl", "--summary", "s.json", *CLOSED)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", UNMOUNTED)
    assert not Path("f.jsonl").exists()
    summary = json.loads(Path("s.json").read_text())
    assert (summary["exit_code"], summary["total"]) == (2, None)
    assert summary["error"] == UNMOUNTED.removeprefix("vlmbatch: ").rstrip()


def test_the_message_says_what_is_there_instead(mnt: Path) -> None:
    """The message names the PATHs, other files by kind and skipped entries."""
    for number in range(3):
        (mnt / f"{number}.pdf").write_bytes(b"%PDF-1.7")
    (mnt / "notes.txt").write_text("text")
    (mnt / "@eaDir").mkdir()
    for name in ("a", "b", "c"):
        Path(name).mkdir()
    done = run("run", "a", "mnt", "b", "c", "photos", "-q", *CLOSED)
    assert done.returncode == 2
    assert "no image below a, mnt, b and 2 more: 4 other files (3 PDF: not read), " in done.stderr
    assert "1 hidden or system entry skipped (1 @eaDir); name such a folder as a PATH" in done.stderr


@pytest.mark.parametrize("by", ["flag", "variable", "file", "file here"])
def test_an_inbox_may_be_empty(mnt: Path, endpoint: Endpoint, by: str) -> None:
    """With --allow-empty, its variable or its TOML key, empty folders exit 0, and -q prints nothing."""
    Path("vlmbatch.toml" if by == "file here" else "mine.toml").write_text("allow-empty = true\n")
    more = {"flag": ("--allow-empty",), "file": ("--config", "mine.toml")}.get(by, ())
    variables = {"VLMBATCH_ALLOW_EMPTY": "1"} if by == "variable" else {}
    done = run(*asking(endpoint, "-q", *more, paths="mnt"), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert endpoint.questions == []


def test_records_of_files_that_are_gone_are_named_and_stay(photos: Photos, endpoint: Endpoint) -> None:
    """If the folder of earlier records is empty now, the message counts them, and no file changes."""
    folder = photos(2)
    (folder / "other").mkdir()
    assert run(*asking(endpoint)).returncode == 0
    assert run(*asking(endpoint, "-q")).returncode == 0
    for photo in folder.glob("*.jpg"):
        photo.unlink()
    kept = {name: Path(name).read_bytes() for name in ("o.jsonl", "o.jsonl.runs")}
    for more in ((), ("--overwrite",)):
        done = run(*asking(endpoint, "-q", *more))
        assert done.returncode == 2
        assert "0 files. o.jsonl has 2 records of images that were there before. Perhaps" in done.stderr
        assert {name: Path(name).read_bytes() for name in kept} == kept
    elsewhere = run(*asking(endpoint, "-q", paths="photos/other"))
    assert elsewhere.returncode == 2
    assert "records" not in elsewhere.stderr


def test_one_empty_folder_of_several_is_a_warning(mnt: Path, photos: Photos, endpoint: Endpoint) -> None:
    """An empty PATH beside one with images is named, also with -q, and the exit code stays 0."""
    photos(1)
    both = ("run", "mnt", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl")
    done = run(*both, "-q", "--summary", "s.json")
    assert (done.returncode, done.stderr) == (0, f"vlmbatch: {OF_SEVERAL}\n")
    assert json.loads(Path("s.json").read_text())["empty_paths"] == ["mnt"]
    assert run(*both).stderr.splitlines().count(OF_SEVERAL) == 1
    assert run(*both, "-q", "--allow-empty").stderr == ""


def test_globs_and_lists_may_leave_nothing(photos: Photos, endpoint: Endpoint) -> None:
    """Images that --include leaves out, and an empty list of paths, exit 0 with a line about it."""
    photos(1)
    for done in (run(*asking(endpoint, "--include", "*.png")), run(*asking(endpoint, paths="-"))):
        assert done.returncode == 0, done.stderr
        assert "no images found" in done.stderr
        assert "--allow-empty" not in done.stderr


async def test_in_python_an_empty_folder_is_a_notice(mnt: Path, endpoint: Endpoint) -> None:
    """run_batch() over an empty folder raises nothing: observers get a notice, and the summary the PATH."""
    done = await ran("mnt", backend="ollama", base_url=endpoint.url)
    assert (done.error, done.results) == (None, [])
    assert Notice(message=OF_SEVERAL) in done.events
    assert done.summary is not None
    assert (done.summary.total, done.summary.empty_paths) == (0, ("mnt",))
    allowed = await ran("mnt", backend="ollama", base_url=endpoint.url, allow_empty=True)
    assert allowed.of(Notice) == []
