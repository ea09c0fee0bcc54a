"""The JSONL writer writes whole lines to a file that it locks."""

import asyncio
import os
import resource
import shutil
from pathlib import Path

import pytest
from written_results import RUN, answered, failed, records, start_python, write

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import ConfigError, LockedError, OutputError, ResourceError
from vlmbatch.records import to_line
from vlmbatch.writers import JsonlWriter

HOLD_LOCK = """
import asyncio, sys
from vlmbatch.config.run import OutputOptions
from vlmbatch.writers import JsonlWriter

async def main():
    async with JsonlWriter(sys.argv[1], OutputOptions()):
        print("held", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""

TRY_TO_OPEN = """
import asyncio, sys
from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import OutputError
from vlmbatch.writers import JsonlWriter

async def main():
    try:
        async with JsonlWriter(sys.argv[1], OutputOptions()) as writer:
            await writer.begin("run", {})
    except OutputError as error:
        print(error)

asyncio.run(main())
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


async def test_a_line_is_the_record_of_its_result(output: Path) -> None:
    """The file contains to_line of each result's record, in the order of writing."""
    results = [answered("a.jpg"), failed("b.jpg")]
    await write(output, results)
    assert output.read_bytes() == b"".join(to_line(result.to_record()) for result in results)


async def test_a_sync_notices_that_the_file_is_gone(output: Path) -> None:
    """After sync() the lines are on the disk; if the file was deleted, it raises, and so does each write."""
    async with JsonlWriter(str(output), OutputOptions(), sync_every_s=1e9) as writer:
        await writer.begin(RUN, {})
        await writer.sync()
        await writer.write(answered("a.jpg"))
        await writer.sync()
        output.unlink()
        await writer.write(answered("b.jpg"))
        for _ in range(2):
            with pytest.raises(OutputError, match="moved, deleted or emptied"):
                await writer.sync()
        with pytest.raises(OutputError, match="moved, deleted or emptied"):
            await writer.write(answered("c.jpg"))


async def test_tasks_that_write_at_once_give_whole_lines(output: Path) -> None:
    """A hundred tasks on one writer give a hundred whole records, one each."""
    images = [f"{number}.jpg" for number in range(100)]
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        await writer.begin(RUN, {})
        async with asyncio.TaskGroup() as group:
            for image in images:
                group.create_task(writer.write(answered(image, "long " * 3000)))
    assert sorted(record["id"] for record in records(output)) == sorted(images)


@pytest.mark.parametrize("ticks", range(12))
async def test_a_cancelled_write_leaves_no_half_line(output: Path, ticks: int) -> None:
    """The line of a cancelled task is in the file completely or not at all."""
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        await writer.begin(RUN, {})
        task = asyncio.create_task(writer.write(answered("cancelled.jpg", "long " * 200_000)))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await writer.write(answered("next.jpg"))
    written = [record["id"] for record in records(output)]
    assert written in (["cancelled.jpg", "next.jpg"], ["next.jpg"])


async def test_a_second_run_gets_the_process_that_holds_the_output(output: Path) -> None:
    """A second process gets LockedError with the id of the first; killing the first frees the lock."""
    with start_python(HOLD_LOCK, output) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"(?s)process {holder.pid}, started 20.*{output}.*--output"):
            await write(output, [])
        assert not output.exists()
        holder.kill()
    await write(output, [answered("a.jpg")])
    assert len(records(output)) == 1


@pytest.mark.parametrize("content", [b"", b'{"pid": 7}', b'{"started": "2026"}', b'{"pid": ', b"[7]"])
async def test_a_damaged_lock_file_names_no_process(output: Path, content: bytes) -> None:
    """A second process gets LockedError, without a process, if the lock file does not say which one it is."""
    with start_python(HOLD_LOCK, output) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        Path(f"{output}.lock").write_bytes(content)
        with pytest.raises(LockedError, match=f"^another run is writing to {output};"):
            await write(output, [])
        holder.kill()


async def test_nothing_but_the_lock_exists_before_begin(output: Path) -> None:
    """Taking the lock does not create the output."""
    async with JsonlWriter(str(output), OutputOptions()):
        assert [path.name for path in output.parent.iterdir()] == ["out.jsonl.lock"]


async def test_an_output_that_got_no_record_is_removed(output: Path) -> None:
    """A run that wrote nothing leaves no new empty file, and does not remove an existing one."""
    await write(output, [])
    assert not output.exists()
    output.touch()
    await write(output, [])
    assert output.exists()


async def test_the_lock_is_free_after_an_error(output: Path) -> None:
    """An exception inside the block closes the file and releases the lock."""

    async def fail_in_the_middle() -> None:
        async with JsonlWriter(str(output), OutputOptions()) as writer:
            await writer.begin(RUN, {})
            await writer.write(answered("a.jpg"))
            raise ConfigError("anything")

    with pytest.raises(ConfigError):
        await fail_in_the_middle()
    await write(output, [answered("b.jpg")])
    assert [record["id"] for record in records(output)] == ["a.jpg", "b.jpg"]


async def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    """The error for an output in a missing folder contains the command that makes the folder."""
    with pytest.raises(OutputError, match=r"mkdir -p '.*/not here'"):
        await write(tmp_path / "not here" / "out.jsonl", [])


async def test_an_output_that_is_a_folder_or_device_is_refused(tmp_path: Path) -> None:
    """A folder or a pipe as output is refused with a flag to type instead, and gets no lock file."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="--output - >"):
        await write(tmp_path / "pipe", [])
    with pytest.raises(OutputError, match=r"--output .*results\.jsonl"):
        await write(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_an_output_in_a_read_only_folder_says_so(tmp_path: Path) -> None:
    """Without permission to write to the folder, the message says so and names --output."""
    drop_rights: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write anywhere, and setpriv is missing to drop that right")
        drop_rights = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with start_python(TRY_TO_OPEN, closed / "out.jsonl", before=drop_rights) as process:
        message, _ = process.communicate()
    assert "permission denied" in message
    assert "--output" in message


async def test_lines_are_synced_to_disk_every_few_seconds(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced at the first write after the given time and once more at the end."""
    synced: list[int] = []
    fsync = os.fsync

    def recording_fsync(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), output.stat()):
            synced.append(os.fstat(fd).st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    now = [100.0]
    line = len(to_line(answered("a.jpg").to_record()))
    async with JsonlWriter(str(output), OutputOptions(), sync_every_s=2.0, clock=lambda: now[0]) as writer:
        await writer.begin(RUN, {})
        for now[0] in (100.0, 101.9, 102.0, 103.0):
            await writer.write(answered("a.jpg"))
    assert synced == [3 * line, 4 * line]


async def test_an_output_that_is_moved_away_ends_the_run(output: Path) -> None:
    """If the output is moved during the run, writing fails instead of going to a file of another name."""
    async with JsonlWriter(str(output), OutputOptions(), sync_every_s=0) as writer:
        await writer.begin(RUN, {})
        await writer.write(answered("a.jpg"))
        output.rename(output.with_suffix(".old"))
        with pytest.raises(OutputError, match="moved, deleted or emptied"):
            await writer.write(answered("b.jpg"))
        with pytest.raises(OutputError, match="moved, deleted or emptied"):
            await writer.write(answered("c.jpg"))


async def test_an_output_that_cannot_be_opened_is_named(output: Path) -> None:
    """A file that turns into a folder between lock and begin is an OutputError with the reason."""
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        output.mkdir()
        with pytest.raises(OutputError, match=r"cannot open .*out\.jsonl: Is a directory.*--output"):
            await writer.begin(RUN, {})


async def test_too_many_open_files_are_no_fault_of_the_output(output: Path) -> None:
    """If the machine is out of descriptors when the output is opened, the error says so."""
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, usual[1]))
        try:
            with pytest.raises(ResourceError, match="ulimit -n"):
                await writer.begin(RUN, {})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)


@pytest.mark.parametrize("failing", [True, False])
async def test_a_failure_at_closing_hides_no_earlier_error(output: Path, failing: bool) -> None:
    """A failed sync at the end is an OutputError, unless another error already ends the run."""

    async def lose_the_output() -> None:
        async with JsonlWriter(str(output), OutputOptions()) as writer:
            await writer.begin(RUN, {})
            await writer.write(answered("a.jpg"))
            output.unlink()
            if failing:
                raise ConfigError("the first error")

    with pytest.raises(
        ConfigError if failing else OutputError, match="first error" if failing else "deleted"
    ):
        await lose_the_output()
