"""Files that the run itself writes into a folder of images, under names of images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import records, run, start
from endpoint import Endpoint
from photo_tree import put

from vlmbatch.config.groups import InputOptions
from vlmbatch.sources import DirectorySource, OwnFiles

Photos = Callable[..., Path]


def asked(endpoint: Endpoint, *args: str, stdin: bytes = b"") -> None:
    pytest.importorskip("prometheus_client")
    args = ("run", *args, "-b", "ollama", "--base-url", endpoint.url, "--retry-failed")
    reports = ("--summary", "photos/sum.png", "--metrics-file", "photos/Met.JPEG", "--cache", "photos/cache")
    done = run(*args, *reports, stdin=stdin)
    assert done.returncode == 0, done.stderr


def ids(path: str) -> set[str]:
    return {record["id"] for record in records(Path(path).read_text())}


@pytest.mark.parametrize(
    "args", [("photos",), (".",), ("photos/p0000.jpg", "photos/out.jpg", "photos/sum.png"), ("-",)]
)
def test_own_files_are_no_images(photos: Photos, endpoint: Endpoint, args: tuple[str, ...]) -> None:
    """Output, summary and metrics in the folder of images are never sent as images, whatever their names."""
    photos(1)
    listed = b"photos/p0000.jpg\nphotos/out.jpg\nphotos/sum.png\nphotos/Met.JPEG\nphotos\n"
    for name in ("sum.png", "Met.JPEG", "out.jpg"):
        Path("photos", name).touch()
    for _ in range(2):  # the second run finds what the first has written
        asked(endpoint, *args, "-o", "photos/out.jpg", stdin=listed if args == ("-",) else b"")
    assert ids("photos/out.jpg") == {"photos/p0000.jpg"}
    assert json.loads(Path("photos/sum.png").read_text())["total"] == 1


def test_an_output_behind_a_link_is_no_image(photos: Photos, endpoint: Endpoint) -> None:
    """An output that is a link to a file in the folder, or a link in the folder, is not sent as an image."""
    photos(1)
    Path("photos/real.jpg").touch()
    Path("photos/a.jpg").symlink_to("real.jpg")
    for output in ("photos/a.jpg", "link.jsonl"):
        Path("link.jsonl").unlink(missing_ok=True)
        Path("link.jsonl").symlink_to("photos/real.jpg")
        asked(endpoint, "photos", "--exclude", "a.jpg", "-o", output)
        assert ids("photos/real.jpg") == {"photos/p0000.jpg"}


def test_standard_output_in_a_file_is_no_image(photos: Photos, endpoint: Endpoint) -> None:
    """A file that the shell makes for standard output is not sent as an image, wherever it is."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell the name of standard output")
    photos(1)
    args = ("run", "photos", "-q", "-b", "ollama", "--base-url", endpoint.url)
    with open("photos/out.jpg", "wb") as out, start(*args, stdout=out) as process:
        assert process.wait() == 0
    assert ids("photos/out.jpg") == {"photos/p0000.jpg"}


def test_another_file_of_the_same_name_is_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in another folder that has the name of an output, or ends with it, is an image."""
    monkeypatch.chdir(tmp_path)
    put("p/out.jpg", "p/b/out.jpg", "p/b/x-out.jpg")
    photos = DirectorySource(("p",), InputOptions(), own=OwnFiles(["p/out.jpg"]))
    assert [ref.id for ref in photos] == ["p/b/out.jpg", "p/b/x-out.jpg"]
    assert photos.ignored == 1
    assert photos.count() == 2


def test_a_dry_run_leaves_them_out(photos: Photos) -> None:
    """A dry run does not count the output of the same command as an image."""
    photos(2)
    Path("photos/out.jpg").touch()
    done = run("run", "photos", "--dry-run", "-b", "ollama", "-m", "x", "-o", "photos/out.jpg")
    assert "images: 2 " in done.stdout + done.stderr
