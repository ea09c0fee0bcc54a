"""FILE.lock next to an output: only a lock file that vlmbatch has written is ever written to."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint
from planted import NO_FILES, a_folder, a_link, a_second_name
from written_results import answered, records, write

from vlmbatch.errors import ConfigError
from vlmbatch.records import to_line
from vlmbatch.writers.lock import MOST_BYTES

Photos = Callable[..., Path]

WHOLE = json.dumps({"pid": 4711, "started": "2026-11-22T10:00:00Z"}).encode()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def lock_of(output: Path) -> Path:
    return Path(f"{output}.lock")


def a_note(path: Path) -> None:
    path.write_text("Remember the milk.")


def a_list(path: Path) -> None:
    path.write_text("[7]")


def a_lock_of_another_program(path: Path) -> None:
    path.write_text('{"pid": 7, "host": "example"}')


def an_endless_number(path: Path) -> None:
    path.write_text('[{"pid": ' + "9" * 5000 + "}]")


def a_deep_nest(path: Path) -> None:
    path.write_text("[" * 100_000)


def a_terabyte(path: Path) -> None:
    path.write_bytes(WHOLE)
    os.truncate(path, MOST_BYTES + 1)


@pytest.mark.parametrize(
    "make",
    [*NO_FILES, a_note, a_list, a_lock_of_another_program, an_endless_number, a_deep_nest, a_terabyte],
)
async def test_anything_else_of_that_name_is_refused(output: Path, make: Callable[[Path], None]) -> None:
    """Anything but a lock file of vlmbatch ends the run with exit code 2 and stays; no output is made."""
    make(lock_of(output))
    before = os.lstat(lock_of(output))
    precious = output.with_name("precious")
    content = precious.read_bytes() if precious.exists() else None
    with pytest.raises(ConfigError) as caught:
        await write(output, [answered("a")])
    assert str(caught.value).startswith(str(lock_of(output)))
    assert "; move it away, or name another file with --output" in str(caught.value)
    after = os.lstat(lock_of(output))
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    )
    assert (precious.read_bytes() if precious.exists() else None) == content
    assert not output.exists()
    assert not output.with_name("nothing").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 50, WHOLE, WHOLE[:3], WHOLE[:30], WHOLE[:30] + bytes(21)),
        *(WHOLE + b'"}', b'{"runs": {}}', WHOLE[:-1] + b', "runs": {"old": {"model": "llava"}}}'),
    ],
)
async def test_a_lock_file_of_ours_is_used_again(output: Path, content: bytes) -> None:
    """A lock file of any version is accepted, also one that a power cut has torn or emptied."""
    lock_of(output).write_bytes(content)
    await write(output, [answered("a")])
    assert json.loads(lock_of(output).read_bytes())["pid"] == os.getpid()
    assert [record["id"] for record in records(output)] == ["a"]


async def test_an_output_may_be_a_link(output: Path) -> None:
    """An output that is a link is written through it, and the lock file is next to its target."""
    target = output.with_name("target.jsonl")
    output.symlink_to(target.name)
    await write(output, [answered("a")])
    assert [record["id"] for record in records(target)] == ["a"]
    assert output.is_symlink()
    assert lock_of(target).exists()
    assert not lock_of(output).exists()


@pytest.mark.parametrize("make", [a_link, a_folder, a_second_name])
async def test_a_torn_line_is_stored_through_no_link(
    output: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a link or a folder has the name for the torn end of an output, nothing is changed."""

    class Noon:
        @staticmethod
        def now(zone: object) -> "Noon":
            return Noon()

        def __format__(self, form: str) -> str:
            return "NOON"

    monkeypatch.setattr("vlmbatch.writers.resume.datetime", Noon)
    torn = to_line(answered("a").to_record())[:99]
    output.write_bytes(torn)
    kept = Path(f"{output}.corrupt-NOON")
    make(kept)
    with pytest.raises(ConfigError, match=r"NOON.*unchanged"):
        await write(output, [answered("b")])
    assert output.read_bytes() == torn
    if make is not a_folder:
        assert kept.read_bytes() in (b"precious", b"")


def test_the_command_says_what_to_type(photos: Photos, endpoint: Endpoint) -> None:
    """The command ends with exit code 2 before any request, and a file behind a planted link is unchanged."""
    photos(1)
    Path("precious").write_text("precious")
    Path("out.jsonl.lock").symlink_to("precious")
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-o", "out.jsonl")
    assert done.returncode == 2
    assert "out.jsonl.lock is a link and was left unchanged; move it away, or name another" in done.stderr
    assert Path("precious").read_text() == "precious"
    assert not endpoint.questions
    assert not Path("out.jsonl").exists()
