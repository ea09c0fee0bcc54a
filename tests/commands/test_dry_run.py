"""The dry run: its counts and lines, and that it sends no request."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from inside import called
from PIL import Image

from vlmbatch.cli.dry_run import report_lines
from vlmbatch.commands.dry_run import DryRunReport, dry_run
from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError

Photos = Callable[..., Path]


def config(*paths: str, **options: object) -> RunConfig:
    return RunConfig.of(*(paths or ("photos",)), **{"backend": "ollama", "model": "llava:7b", **options})


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines name the default endpoint, which OLLAMA_HOST of this machine would change."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)


@pytest.fixture
def mixed(photos: Photos) -> Path:
    """Two JPEGs, a large PNG, two files that would fail, and one that is not an image."""
    folder = photos(2)
    Image.new("RGB", (4000, 2000)).save(folder / "large.png")
    (folder / "bad.jpg").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("notes")
    return folder


def test_it_counts_formats_sizes_and_failures(mixed: Path) -> None:
    """The report counts every image with its format and sent size, and names the images that would fail."""
    told: list[object] = []
    found = dry_run(config(), told.append)
    good = [path for path in mixed.iterdir() if path.name in ("p0000.jpg", "p0001.jpg", "large.png")]
    assert (found.images, found.failing, found.ignored, found.unreadable) == (5, 2, 1, 0)
    assert found.formats == {"JPEG": 2, "PNG": 1}
    assert found.sent_sizes == {(64, 48): 2, (1024, 512): 1}
    assert found.bytes == sum(path.stat().st_size for path in good)
    assert found.megapixels == pytest.approx(2 * 64 * 48 / 1e6 + 8)
    assert found.sent_megapixels == pytest.approx((2 * 64 * 48 + 1024 * 512) / 1e6)
    assert found.problems == [
        "photos/bad.jpg: bad_image: not an image: it begins like text",
        "photos/empty.png: bad_image: the file is empty; get a whole copy",
    ]
    assert (found.backend, found.place) == ("ollama", "http://127.0.0.1:11434")
    assert told == []


def test_it_keeps_to_the_options_of_the_run(mixed: Path) -> None:
    """--limit, --include, --exclude, --max-size, --max-bytes and --max-pixels-in work as in a run."""
    assert dry_run(config(limit=3), print).images == 3
    assert dry_run(config(include=("*.jpg",), exclude=("bad*",)), print).formats == {"JPEG": 2}
    assert dry_run(config(max_size=0), print).sent_sizes[4000, 2000] == 1
    refused = dry_run(config(max_bytes=1000), print)
    assert any("large.png: too_large" in problem for problem in refused.problems)
    bomb = dry_run(config(max_pixels_in=1_000_000), print)
    assert any("large.png: too_large" in problem for problem in bomb.problems)


def test_an_upright_picture_is_counted_upright(photos: Photos) -> None:
    """A picture that EXIF turns by 90 degrees is counted with the sides after turning."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2048, 1024)).save(photos(0) / "turned.jpg", exif=exif)
    assert dry_run(config(), print).sent_sizes == {(512, 1024): 1}


def test_a_mistake_that_ends_a_run_ends_the_dry_run(photos: Photos) -> None:
    """A mistake that ends a run with exit code 2 before any request raises the same error in a dry run."""
    photos(1)
    with pytest.raises(ConfigError, match="does not exist"):
        dry_run(config("nowhere"), print)
    with pytest.raises(ConfigError, match="prompt"):
        dry_run(config(prompt_file="missing.txt"), print)


def test_of_many_failures_twenty_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images that would fail are counted, and the first twenty are named."""
    monkeypatch.chdir(tmp_path)
    for number in range(30):
        Path(f"{number:02}.png").touch()
    found = dry_run(config("."), print)
    assert (found.failing, len(found.problems)) == (30, 20)


def test_the_lines_of_a_dry_run(mixed: Path) -> None:
    """The lines show counts, formats, sizes, tokens, endpoint, prompt, output and failures."""
    chosen = config(output="o.jsonl", prompt="What is this?")
    lines = report_lines(chosen, dry_run(chosen, print))
    assert lines == [
        "images: 5 (2 JPEG, 1 PNG)",
        "on disk: 0.0 MB, 8.0 megapixels",
        "to send: 0.5 megapixels, 2 at 64x48, 1 at 1024x512",
        "image tokens: about 4,488 in total",
        "to: ollama (http://127.0.0.1:11434), model llava:7b",
        "prompt: What is this?",
        "records to: o.jsonl",
        "skipped: 1 other file, 0 unreadable folders",
        "images that would fail: 2",
        "  photos/bad.jpg: bad_image: not an image: it begins like text",
        "  photos/empty.png: bad_image: the file is empty; get a whole copy",
    ]


def test_the_lines_without_images() -> None:
    """Without images, model and output file the lines are short and still correct."""
    found = DryRunReport(backend="auto", place="the first that answers", prompt="hi")
    lines = report_lines(RunConfig.of("photos"), found)
    assert lines[0] == "images: 0"
    assert lines[2] == "to send: 0.0 megapixels"
    assert lines[3] == "to: auto (the first that answers), model chosen at the start"
    assert lines[5:] == ["records to: standard output"]


def test_other_sizes_are_summed_up() -> None:
    """The lines name the three most frequent sizes and count the other ones."""
    found = DryRunReport(backend="ollama", place="x", prompt="hi")
    for width in range(5):
        found.sent_sizes[100 + width, 50] = 9 - width
    assert report_lines(config(), found)[2].endswith(
        "9 at 100x50, 8 at 101x50, 7 at 102x50 and 2 other sizes"
    )
    del found.sent_sizes[104, 50]
    assert report_lines(config(), found)[2].endswith("7 at 102x50 and 1 other size")


def test_nothing_is_contacted_and_nothing_written(mixed: Path) -> None:
    """The real command with --dry-run opens no connection, creates no file and prints no record."""
    before = sorted(mixed.parent.rglob("*"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for backend, ask in (("auto", run), ("ollama", called), ("vllm", called), ("openai", called)):
            args = ("run", "photos", "--dry-run", "-b", backend, "--base-url", url, "-o", "o.jsonl")
            done = ask(*args)
            assert (done.returncode, done.stdout) == (0, "")
            assert "images: 5" in done.stderr
            assert "images that would fail: 2" in done.stderr
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert sorted(mixed.parent.rglob("*")) == before
