"""The stream writer writes whole lines to a pipe, and reports a closed or full one."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest
from written_results import RUN, answered, ref

from vlmbatch.errors import OutputClosed, OutputError
from vlmbatch.records import to_line
from vlmbatch.writers import StreamWriter


async def test_a_cancelled_task_is_waited_for_until_its_line_is_whole() -> None:
    """A task cancelled in the middle of a line ends after that line, and the next line follows it."""
    read_end, write_end = os.pipe()
    writer = StreamWriter(write_end)
    await writer.begin(RUN, {})
    first = asyncio.create_task(writer.write(answered("first.jpg", "long " * 100_000)))
    second = asyncio.create_task(writer.write(answered("second.jpg")))
    start = await asyncio.to_thread(os.read, read_end, 10)  # the first line is on its way
    first.cancel()
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not first.done()
    content = asyncio.create_task(asyncio.to_thread(_read_all, read_end))
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    os.close(write_end)
    lines = (start + await content).splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["first.jpg", "second.jpg"]


async def test_a_stream_gets_each_record_and_finishes_nothing() -> None:
    """A StreamWriter writes the same lines to a descriptor, leaves it open, and finishes no image."""
    read_end, write_end = os.pipe()
    async with StreamWriter(write_end) as writer:
        finished = await writer.begin(RUN, {})
        assert finished(ref("a.jpg"), lambda _: None) is None
        await writer.write(answered("a.jpg"))
    os.write(write_end, b"still open")
    os.close(write_end)
    assert _read_all(read_end) == to_line(answered("a.jpg").to_record()) + b"still open"


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_line_longer_than_the_pipe_comes_out_whole(blocking: bool) -> None:
    """A record that does not fit into the pipe at once is written completely, blocking or not."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)
    content: list[bytes] = []
    reader = threading.Thread(target=lambda: content.append(_read_all(read_end)))
    result = answered("a.jpg", "long " * 100_000)
    async with StreamWriter(write_end) as writer:
        await writer.begin(RUN, {})
        reader.start()
        await writer.write(result)
    os.close(write_end)
    await asyncio.to_thread(reader.join)
    assert content == [to_line(result.to_record())]


async def test_a_closed_pipe_ends_the_run_quietly() -> None:
    """A closed pipe raises OutputClosed, whose exit code is 0, at this and every later write."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    async with StreamWriter(write_end) as writer:
        await writer.begin(RUN, {})
        for _ in range(2):
            with pytest.raises(OutputClosed) as caught:
                await writer.write(answered("a.jpg"))
            assert caught.value.exit_code == 0
    os.close(write_end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
async def test_a_full_disk_behind_standard_output_is_an_output_error() -> None:
    """A full disk is an OutputError that says so, and nothing is written after it."""
    output, roomy = os.open("/dev/full", os.O_WRONLY), os.open("/dev/null", os.O_WRONLY)
    async with StreamWriter(output) as writer:
        await writer.begin(RUN, {})
        with pytest.raises(OutputError, match=r"the disk is full.*--output"):
            await writer.write(answered("a.jpg"))
        os.dup2(roomy, output)  # the disk has space again, behind what may be half a line
        with pytest.raises(OutputError, match="the disk is full"):
            await writer.write(answered("a.jpg"))
    os.close(output)
    os.close(roomy)


async def test_a_closed_standard_output_is_an_output_error() -> None:
    """A closed descriptor is reported by begin(), before the first request."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    async with StreamWriter(write_end) as writer:
        with pytest.raises(OutputError, match="the stream is closed"):
            await writer.begin(RUN, {})


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()
