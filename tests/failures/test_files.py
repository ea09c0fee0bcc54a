"""What a run makes of what is no file, or does not stay one: rows F9 to F17 of docs/failures.md."""

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


def put_devices(folder: Path) -> list[str]:
    os.mkfifo(folder / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.jpg"))
    (folder / "zero.jpg").symlink_to("/dev/zero")
    return [f"photos/{name}.jpg" for name in ("fifo", "socket", "zero")]


async def test_f9_devices_on_a_walk_are_counted_and_named_ones_fail(folder: Path, endpoint: Endpoint) -> None:
    """A FIFO, a socket and a link to /dev/zero never block: ignored on a walk, not_a_file where named."""
    named = put_devices(folder)
    done = await over(endpoint)
    assert done.ids == ["photos/p0000.jpg"]
    assert done.summary is not None
    assert done.summary.ignored == 3
    asked = await over(endpoint, *named)
    assert {f.kind for f in failures(asked).values()} == {"not_a_file"}
    assert len(asked.results) == 3


async def test_f10_links_that_lead_back_are_not_followed(folder: Path, endpoint: Endpoint) -> None:
    """A folder that links to itself and a link that leads to itself end no walk and repeat no image."""
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    done = await over(endpoint)
    assert done.ids == ["photos/p0000.jpg"]


def test_f10_f17_a_path_of_a_list_that_leads_nowhere_costs_its_own_record(
    folder: Path, endpoint: Endpoint
) -> None:
    """A link to itself and a name longer than any file's fail by their kind, and nothing else does."""
    (folder / "loop.jpg").symlink_to("loop.jpg")
    listed = ["photos/p0000.jpg", "photos/loop.jpg", f"photos/{'x' * 300}.jpg"]
    done = run(*asking(endpoint, paths="-"), stdin="\n".join(listed).encode())
    assert done.returncode == 3
    kinds = {name: r["error"] and r["error"]["kind"] for name, r in written().items()}
    assert kinds == {"p0000.jpg": None, "loop.jpg": "not_a_file", f"{'x' * 300}.jpg": "unreadable"}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_f11_what_may_not_be_read_is_told_and_is_no_success(folder: Path, endpoint: Endpoint) -> None:
    """A closed folder is counted and a closed file is a record; exit 3, and the next run asks again."""
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


def test_f12_f13_any_name_survives_and_steers_nothing(folder: Path, endpoint: Endpoint) -> None:
    """Bytes that are no UTF-8, line breaks and escapes: the record leads back to the file, and is resumed."""
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


async def test_f14_what_vanishes_before_it_is_read_fails_and_stops_nothing(
    photos: Photos, endpoint: Endpoint
) -> None:
    """Files that are deleted after the walk has listed them are failures that a later run may find well."""
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
    """A copy in progress is no broken image: it fails for now, and is answered once it is complete."""
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


def test_f16_a_file_that_shrinks_after_it_was_read_kills_nothing(folder: Path) -> None:
    """A plain TIFF is decoded from memory, not from a mapping of the file, which would end in SIGBUS."""
    path = folder / "scan.tif"
    path.write_bytes(encoded(SMALL.resize((2000, 1500)), "TIFF"))
    found = source(str(path))
    (ref,) = found
    image = found.read(ref)
    os.truncate(path, 100)
    assert prepare(image.data, ImageOptions()).width == 1024


def test_f17_auto_concurrency_stays_below_the_descriptors(photos: Photos, endpoint: Endpoint) -> None:
    """An endpoint that would take any number of requests gets no more than there are files to open."""
    photos(400)
    endpoint.delay = 0.1
    done = run(*asking(endpoint), command=("prlimit", "--nofile=48:48", *COMMAND))
    assert done.returncode == 0, done.stderr
    assert len(written()) == 400
    assert endpoint.most_open_questions > 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to RLIMIT_AS")
def test_f17_too_little_memory_is_no_images_failure() -> None:
    """Where this process can get no more, a good picture ends the run; with memory, a bad one does not.

    In a process without threads: those that CPython starts without memory may never begin, and nobody tells.
    """
    done = run_python(
        "import resource; from pathlib import Path\n"
        "from vlmbatch.config import RunConfig; from vlmbatch.errors import ImageError, ResourceError\n"
        "from vlmbatch.images import SourceImage; from vlmbatch.imaging.memory import DecodeMemory\n"
        "from vlmbatch.pipeline.preparer import Preparer; from vlmbatch.pipeline.question import Question\n"
        "from vlmbatch.records import Endpoint\n"
        f"good, bad = {encoded(Image.new('RGB', (3000, 2000)))!r}, {encoded(SMALL)[:500]!r}\n"
        "memory = DecodeMemory(100_000_000, 10**12)\n"
        "preparer = Preparer(memory=memory, max_bytes=10**9, dedup=None, threads=None, notify=print)\n"
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


async def test_f17_a_disk_that_fails_is_a_failure_for_now(
    folder: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO and ESTALE, which no disk here can be made to give, are tried three times, then io_error."""
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
def test_f17_too_few_descriptors_are_no_images_failure(photos: Photos, endpoint: Endpoint, most: int) -> None:
    """Wherever they run out: exit 2 with the way out, no image is blamed, and the next run is whole."""
    photos(40)
    endpoint.delay = 0.1
    done = run(*asking(endpoint, "-c", "30"), command=("prlimit", f"--nofile={most}:{most}", *COMMAND))
    assert done.returncode == 2, done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
    assert [r for r in written().values() if r["status"] != "ok"] == []
    finish(endpoint.url)
    assert len(written()) == len(Path("o.jsonl").read_text().splitlines()) == 40
