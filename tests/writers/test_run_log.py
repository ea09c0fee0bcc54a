"""FILE.runs next to an output: the prompts and settings of its runs."""

import asyncio
import json
import os
import resource
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import NO_FILES
from written_results import RUN, answered, failed, lines_of_runs, outcomes, records, write

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import ConfigError, OutputError
from vlmbatch.records import to_line
from vlmbatch.writers import JsonlWriter
from vlmbatch.writers.run_log import MOST_BYTES

OLD = {"model": "llava:7b", "prompt": "Describe this image.", "max_size": 1024}
NEW = OLD | {"prompt": "Name\nthe objects: \u732b \U0001f600"}
APPEND, OVERWRITE = OutputOptions(append=True), OutputOptions(overwrite=True)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def runs_of(output: Path) -> Path:
    return Path(f"{output}.runs")


async def test_a_line_describes_each_run(output: Path) -> None:
    """A run has one line with its fingerprint, prompt, settings, version and start; resuming adds none."""
    await write(output, [answered("a")], settings=NEW)
    (line,) = lines_of_runs(output)
    assert line.pop("started_at").startswith("20")
    assert line == {
        "v": 1,
        "run": RUN,
        "prompts": {"default": NEW["prompt"]},
        "settings": NEW,
        "version": version("vlmbatch"),
    }
    before = runs_of(output).read_bytes()
    await write(output, [answered("b")], settings=NEW)
    assert runs_of(output).read_bytes() == before


async def test_the_line_is_on_the_disk_before_the_first_record(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is written before FILE.runs is synced, and a run without a record leaves no FILE.runs."""
    await write(output, [], settings=OLD)
    assert not runs_of(output).exists()
    sizes: list[int] = []
    fsync = os.fsync

    def recording_fsync(fd: int) -> None:
        if runs_of(output).exists() and os.path.samestat(os.fstat(fd), runs_of(output).stat()):
            sizes.append(output.stat().st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    await write(output, [answered("a")], settings=OLD)
    assert sizes == [0]


async def test_append_adds_a_line(output: Path) -> None:
    """With --append the settings of both runs are known, also if the second run has no record."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    await write(output, [], APPEND, settings=NEW)
    assert [(line["run"], line["settings"]) for line in lines_of_runs(output)] == [("old", OLD), (RUN, NEW)]


async def test_overwrite_starts_anew_with_the_first_answer(output: Path) -> None:
    """With --overwrite the old lines stay as long as the old records, and then are deleted."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    await write(output, [], OVERWRITE, settings=NEW)
    assert [line["run"] for line in lines_of_runs(output)] == ["old"]
    await write(output, [answered("b")], OVERWRITE, settings=NEW)
    assert [line["run"] for line in lines_of_runs(output)] == [RUN]


async def test_a_lost_file_is_written_again(output: Path) -> None:
    """If FILE.runs was deleted, the records still say what is done, and the next run writes its line."""
    await write(output, [answered("a"), failed("b")], settings=OLD)
    runs_of(output).unlink()
    await write(output, [], settings=OLD)
    assert [line["run"] for line in lines_of_runs(output)] == [RUN]
    assert await outcomes(output, "abc") == ["done", "failed", "ask"]


async def test_an_old_lock_file_is_understood(output: Path) -> None:
    """Settings in the lock file of an earlier version name the differences, and move to FILE.runs."""
    output.write_bytes(to_line(answered("a", run="old").to_record()))
    lock = Path(f"{output}.lock")
    lock.write_text(json.dumps({"pid": 1, "started": "2026-11-22T10:00:00Z", "runs": {"old": OLD}}))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"prompt: was 'Describe this image\.', now 'Name"):
            await write(output, [], settings=NEW)
    await write(output, [], APPEND, settings=NEW)
    first, second = lines_of_runs(output)
    assert (first["run"], first["settings"], second["run"]) == ("old", OLD, RUN)
    assert first["prompts"] == {"default": "Describe this image."}
    assert (first["version"], first["started_at"]) == (None, None)
    assert json.loads(lock.read_bytes()).keys() == {"pid", "started"}


async def test_secrets_are_masked(output: Path) -> None:
    """A key in --extra-body is neither in FILE.runs nor in a message, also if an old lock file has it."""
    body = {"extra_body": '{"api_key": "s3cret", "top_k": 3}'}
    output.write_bytes(to_line(answered("a", run="old").to_record()))
    Path(f"{output}.lock").write_text(json.dumps({"runs": {"old": OLD | body}}))
    with pytest.raises(ConfigError) as caught:
        await write(output, [], settings=NEW)
    await write(output, [answered("b")], APPEND, settings=NEW | body)
    told = [json.loads(line["settings"]["extra_body"]) for line in lines_of_runs(output)]
    assert told == [{"api_key": "[key]", "top_k": 3}] * 2
    files = [path.read_text() for path in output.parent.iterdir()]
    assert "s3cret" not in "".join([*files, str(caught.value)])


WHOLE = b"".join(
    b'{"v":1,"run":"%b","prompts":{"default":"p"},"settings":{"prompt":"p"},"version":"1","started_at":"x"}\n'
    % run
    for run in (b"first", b"second")
)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(WHOLE)), zeros=st.sampled_from([b"", b"\0" * 40]))
def test_a_file_cut_anywhere_is_repaired(cut: int, zeros: bytes) -> None:
    """After a crash at any byte, also with zeros after it, all whole lines stay, and a new one is added."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out.jsonl")
        runs_of(output).write_bytes(WHOLE[:cut] + zeros)
        asyncio.run(write(output, [answered("a")], settings=NEW))
        named = [line["run"] for line in lines_of_runs(output)]
        whole = WHOLE[:cut].count(b"}\n") + (WHOLE[:cut].endswith(b'"x"}') and not zeros)
        assert named == [*("first", "second")[:whole], RUN]


async def test_bad_lines_are_reported_and_stay(output: Path) -> None:
    """A line that describes no run is skipped, reported and kept, also at the end without its newline."""
    runs_of(output).write_bytes(WHOLE + b"junk\n" + WHOLE[:3])
    output.write_bytes(to_line(answered("a", run="first").to_record()))
    with runs_of(output).open("ab") as file:
        file.write(b"more junk")
    writer = await write(output, [answered("b")], APPEND, settings=NEW)
    assert any("out.jsonl.runs: 1 lines describe no run" in notice for notice in writer.notices)
    assert runs_of(output).read_bytes().splitlines()[2] == b"junk"
    assert json.loads(runs_of(output).read_bytes().splitlines()[-1])["run"] == RUN


def a_thesis(path: Path) -> None:
    path.write_text("A thesis.\n" * 1000)


def records_of_another_run(path: Path) -> None:
    path.write_bytes(to_line(answered("a").to_record()))


def a_line_without_end(path: Path) -> None:
    path.write_bytes(b"x" * 100_000)


def terabytes_of_zeros(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def too_many_lines(path: Path) -> None:
    path.write_bytes(WHOLE)
    os.truncate(path, MOST_BYTES + 1)


@pytest.mark.parametrize(
    "make",
    [
        *NO_FILES,
        *(a_thesis, records_of_another_run, a_line_without_end, terabytes_of_zeros, too_many_lines),
    ],
)
@pytest.mark.parametrize("options", [OutputOptions(), OVERWRITE])
async def test_a_file_that_is_not_ours_is_refused(
    output: Path, make: Callable[[Path], None], options: OutputOptions
) -> None:
    """Anything else under this name is refused before the first request and stays; the lock is free again."""
    make(runs_of(output))
    before = os.lstat(runs_of(output))
    for _ in range(2):
        with pytest.raises((OutputError, ConfigError)) as caught:
            await write(output, [answered("a")], options, settings=NEW)
        assert str(runs_of(output)) in str(caught.value)
        assert "; move it away, or name another file with --output" in str(caught.value)
        assert caught.value.exit_code in (2, 5)
    after = os.lstat(runs_of(output))
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    )
    assert not output.exists()
    assert not output.with_name("nothing").exists()


async def test_a_full_disk_writes_no_record_without_its_settings(output: Path) -> None:
    """If FILE.runs cannot be written, no record is written either, and the next run writes both."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OutputError, match="limit on the size of a file"):
            await write(output, [answered("a")], settings=NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not output.exists()
    await write(output, [answered("a")], settings=NEW)
    assert [line["run"] for line in lines_of_runs(output)] == [RUN]
    assert len(records(output)) == 1


async def test_settings_of_earlier_runs_are_read(output: Path) -> None:
    """A later writer knows the settings of all earlier runs by their fingerprint."""
    await write(output, [answered("a", run="old")], run="old", settings=OLD)
    await write(output, [answered("b")], APPEND, settings=NEW)
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        assert writer.earlier == {"old": OLD, RUN: NEW}
