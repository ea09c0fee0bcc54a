"""Paths that are no file, and files that change or cannot be read: rows F9 to F17 of docs/failures.md."""

import errno
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, records, run
from endpoint import Endpoint
from file_runs import asking, failures, over, written
from inside import finish
from photo_tree import source
from pictures import SMALL, encoded, run_python
from PIL import Image
from running import ran

from vlmbatch.batch import Batch
from vlmbatch.config import RunConfig
from vlmbatch.config.groups import ImageOptions
from vlmbatch.events import ImageFinished
from vlmbatch.imaging.prepare import prepare

Photos = Callable[..., Path]


def make_devices(folder: Path) -> list[str]:
    os.mkfifo(folder / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.jpg"))
    (folder / "zero.jpg").symlink_to("/dev/zero")
    return [f"photos/{name}.jpg" for name in ("fifo", "socket", "zero")]


async def test_f9_devices_are_ignored_on_a_walk_and_fail_if_named(folder: Path, endpoint: Endpoint) -> None:
    """A FIFO, a socket and a link to /dev/zero never block: ignored on a walk, not_a_file if named."""
    named = make_devices(folder)
    done = await over(endpoint)
    assert done.ids == ["photos/p0000.jpg"]
    assert done.summary is not None
    assert done.summary.ignored == 3
    asked = await over(endpoint, *named)
    assert {f.kind for f in failures(asked).values()} == {"not_a_file"}
    assert len(asked.results) == 3


async def test_f10_links_that_lead_back_are_not_followed(folder: Path, endpoint: Endpoint) -> None:
    """A folder that links to itself, and a link to itself, repeat no image and do not end the walk."""
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    done = await over(endpoint)
    assert done.ids == ["photos/p0000.jpg"]


def test_f10_f17_a_listed_path_that_leads_nowhere_fails_alone(folder: Path, endpoint: Endpoint) -> None:
    """In a list, a link to itself and a name that is too long fail with their kind, and no other path."""
    (folder / "loop.jpg").symlink_to("loop.jpg")
    listed = ["photos/p0000.jpg", "photos/loop.jpg", f"photos/{'x' * 300}.jpg"]
    done = run(*asking(endpoint, paths="-"), stdin="\n".join(listed).encode())
    assert done.returncode == 3
    kinds = {name: r["error"] and r["error"]["kind"] for name, r in written().items()}
    assert kinds == {"p0000.jpg": None, "loop.jpg": "not_a_file", f"{'x' * 300}.jpg": "unreadable"}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_f11_files_without_permission_are_reported_as_failures(folder: Path, endpoint: Endpoint) -> None:
    """A folder and a file without permission are reported with exit code 3; the next run answers both."""
    for name in ("closed/p.jpg", "secret.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "p0000.jpg", folder / name)
    (folder / "secret.jpg").chmod(0)
    (folder / "closed").chmod(0)
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = run(*asking(endpoint), command=(*plain, *COMMAND))
    (folder / "closed").chmod(0o755)
    (folder / "secret.jpg").chmod(0o644)
    assert done.returncode == 3, done.stderr
    assert "photos/closed: cannot be listed: permission denied" in done.stderr
    error = written()["secret.jpg"]["error"]
    assert (error["kind"], error["retryable"]) == ("unreadable", True)
    assert run(*asking(endpoint)).returncode == 0
    assert len(Path("o.jsonl").read_text().splitlines()) == 4


def test_f12_f13_any_file_name_is_recorded_and_resumed(folder: Path, endpoint: Endpoint) -> None:
    """A file name with invalid UTF-8, line breaks or escapes is recorded, shown without them, and resumed."""
    names = [b"caf\xe9.jpg", b"new\nline.jpg", b"\x1b[31mred\x1b]0;t\x07.jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"no image: " + name)
    asked = asking(endpoint, "-v")
    first = run(*asked)
    assert first.returncode == 3
    lines = Path("o.jsonl").read_bytes()
    assert lines.isascii()
    failed = [os.fsencode(r["id"]) for r in records(lines.decode()) if r["status"] == "error"]
    assert sorted(failed) == sorted(b"photos/" + name for name in names)
    assert not [sign for sign in ("\x1b", "\x07", "new\nline") if sign in first.stderr]
    assert run(*asked).returncode == 3
    assert Path("o.jsonl").read_bytes() == lines


async def test_f14_a_file_that_vanishes_before_it_is_read_fails_alone(
    photos: Photos, endpoint: Endpoint
) -> None:
    """A file that is deleted after the walk has listed it is a retryable failure, and the run goes on."""
    folder = photos(40)

    def delete(event: object) -> None:
        if isinstance(event, ImageFinished):
            (folder / "p0039.jpg").unlink(missing_ok=True)

    config = RunConfig.of("photos", backend="ollama", base_url=endpoint.url, concurrency=1)
    results = [result async for result in Batch(config, [delete])]
    (failed,) = (r for r in results if r.failure)
    assert failed.id == "photos/p0039.jpg"
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.retryable) == ("vanished", True)
    assert len(results) == 40


async def test_f15_a_file_that_is_being_written_is_left_for_the_next_run(
    folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is still being written is a retryable io_error, and the next run answers it."""
    slow, real = folder / "slow.bmp", os.read
    slow.write_bytes(encoded(SMALL, "BMP"))

    def read_while_it_grows(fd: int, size: int) -> bytes:
        data = real(fd, size)
        if os.path.samestat(os.fstat(fd), slow.stat()):
            with slow.open("ab") as file:
                file.write(b"x")
        return data

    with monkeypatch.context() as writing:
        writing.setattr(os, "read", read_while_it_grows)
        first = failures(await over(endpoint, output="o.jsonl"))
    assert (first["slow.bmp"].kind, first["slow.bmp"].retryable) == ("io_error", True)
    second = await ran(backend="ollama", base_url=endpoint.url, output="o.jsonl")
    assert [(r.id, r.ok) for r in second.results] == [("photos/slow.bmp", True)]


def test_f16_a_file_that_shrinks_after_it_was_read_is_decoded(folder: Path) -> None:
    """A TIFF is decoded from memory, not from a mapping of its file, which would cause a SIGBUS."""
    path = folder / "scan.tif"
    path.write_bytes(encoded(SMALL.resize((2000, 1500)), "TIFF"))
    found = source(str(path))
    (ref,) = found
    image = found.read(ref)
    os.truncate(path, 100)
    assert prepare(image.data, ImageOptions()).width == 1024


def test_f17_auto_concurrency_stays_below_the_descriptors(photos: Photos, endpoint: Endpoint) -> None:
    """With 48 descriptors, auto concurrency answers 400 images with more than four requests at once."""
    photos(400)
    endpoint.delay = 0.1
    done = run(*asking(endpoint), command=("prlimit", "--nofile=48:48", *COMMAND))
    assert done.returncode == 0, done.stderr
    assert len(written()) == 400
    assert endpoint.most_open_questions > 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to RLIMIT_AS")
def test_f17_too_little_memory_fails_no_image() -> None:
    """Without memory every picture is a ResourceError; with memory only a bad one is an ImageError.

    The process has no threads: a thread that CPython starts without memory may silently never begin.
    """
    done = run_python(
        "import resource; from pathlib import Path\n"
        "from vlmbatch.config import RunConfig; from vlmbatch.errors import ImageError, ResourceError\n"
        "from vlmbatch.images import SourceImage; from vlmbatch.imaging.memory import DecodeMemory\n"
        "from vlmbatch.pipeline.preparer import Preparer; from vlmbatch.pipeline.question import Question\n"
        "from vlmbatch.records import Endpoint\n"
        f"good, bad = {encoded(Image.new('RGB', (3000, 2000)))!r}, {encoded(SMALL)[:500]!r}\n"
        "memory = DecodeMemory(100_000_000, 10**12)\n"
        "preparer = Preparer(memory=memory, max_bytes=10**9, dedup=None, threads=None, limits=None, "
        "notify=print)\n"
        "config = RunConfig.of('photos', max_size=1024)\n"
        "question = Question.of(config, Endpoint(backend='b', url='u', model='m'), 'p', None)\n"
        "def attempt(data, megabytes):\n"
        "    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 1_000_000, -1))\n"
        "    image = SourceImage(data=data, sha256='', stamp=None)\n"
        "    try: return f'{preparer.picture(question, image, None).width}'\n"
        "    except (ImageError, ResourceError) as error: return type(error).__name__\n"
        "    finally: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "print([attempt(data, megabytes) for data in (good, bad) for megabytes in (10, 500)])\n"
    )
    assert done.stdout == b"['ResourceError', '1024', 'ResourceError', 'ImageError']\n", done.stderr


async def test_f17_a_failing_disk_is_a_retryable_failure(
    folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read three times on EIO and ESTALE, simulated here, and is then a retryable io_error."""
    shutil.copy(folder / "p0000.jpg", folder / "sick.jpg")
    sick, tries, real = (folder / "sick.jpg").stat().st_ino, 0, os.read

    def fails(fd: int, size: int) -> bytes:
        nonlocal tries
        if os.fstat(fd).st_ino == sick:
            tries += 1
            raise OSError(errno.EIO if tries % 2 else errno.ESTALE, "the disk")
        return real(fd, size)

    monkeypatch.setattr(os, "read", fails)
    found = failures(await over(endpoint))
    assert (found["sick.jpg"].kind, found["sick.jpg"].retryable, tries) == ("io_error", True, 3)


@pytest.mark.parametrize("most", [6, 9, 12, 20])
def test_f17_too_few_descriptors_fail_no_image(photos: Photos, endpoint: Endpoint, most: int) -> None:
    """Too few descriptors, at any point, are exit code 2 with `ulimit -n`, and the next run is complete."""
    photos(40)
    endpoint.script = lambda request: "held"  # so that as many as possible are open at once
    done = run(
        *asking(endpoint, "-c", "30", "--drain", "0"),
        command=("prlimit", f"--nofile={most}:{most}", *COMMAND),
    )
    assert done.returncode == 2, done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
    assert [r for r in written().values() if r["status"] != "ok"] == []
    endpoint.script = ()
    finish(endpoint.url)
    assert len(written()) == len(Path("o.jsonl").read_text().splitlines()) == 40
