"""Answers found again in the output, by the content and prompt that they are about."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from written_results import RUN, answered, failed, write

from vlmbatch.config.run import OutputOptions
from vlmbatch.records import Result
from vlmbatch.writers import JsonlWriter

SHA256 = [f"{n:064x}" for n in range(200)]


def about(number: int, text: str = "A cat.", **changes: object) -> Result:
    """An answer about one of many contents."""
    result = answered(f"p{number}.jpg", text)
    return replace(result, image=replace(result.image, sha256=SHA256[number]), **changes)


def text_of(writer: JsonlWriter, number: int, prompt: str = "default") -> str | None:
    found = writer.find(SHA256[number], prompt)
    return None if found is None else found["response"]


async def test_what_is_written_can_be_found_at_once(tmp_path: Path) -> None:
    """Each of many answers of any length that tasks write at once is found by its content."""
    async with JsonlWriter(str(tmp_path / "o.jsonl"), OutputOptions()) as writer:
        await writer.begin(RUN, {})
        assert text_of(writer, 0) is None
        await asyncio.gather(*(writer.write(about(n, f"{n} " * 37 * n)) for n in range(200)))
        assert [text_of(writer, n) for n in range(200)] == [f"{n} " * 37 * n for n in range(200)]
        assert text_of(writer, 5, "other prompt") is None


async def test_what_earlier_runs_wrote_is_found(tmp_path: Path) -> None:
    """Of this run's answers only, the last of each content, and neither failures nor copies."""
    output = tmp_path / "o.jsonl"
    failure = failed("p2.jpg")
    await write(
        output,
        [
            about(0, "old"),
            about(0, "new"),
            about(1, "a copy's", duplicate_of="p0.jpg"),
            replace(failure, image=replace(failure.image, sha256=SHA256[2])),
            about(3, "of another run", run="0" * 12),
            about(4, "from a cache", cached=True),
        ],
    )
    async with JsonlWriter(str(output), OutputOptions(append=True)) as writer:
        await writer.begin(RUN, {})
        assert [text_of(writer, n) for n in range(5)] == ["new", None, None, None, "from a cache"]


async def test_nothing_is_found_of_what_is_overwritten(tmp_path: Path) -> None:
    """--overwrite starts anew, also with what is known."""
    output = tmp_path / "o.jsonl"
    await write(output, [about(0), about(1)])
    async with JsonlWriter(str(output), OutputOptions(overwrite=True)) as writer:
        await writer.begin(RUN, {})
        assert text_of(writer, 0) is None
        await writer.write(about(1, "anew"))
        assert (text_of(writer, 0), text_of(writer, 1)) == (None, "anew")


@pytest.mark.parametrize("spoilt", [b"", b"\0" * 4000, b"{" * 4000])
async def test_a_file_that_somebody_spoils_answers_nothing(tmp_path: Path, spoilt: bytes) -> None:
    """What does not stand there any more is asked about again."""
    output = tmp_path / "o.jsonl"
    async with JsonlWriter(str(output), OutputOptions(), sync_every_s=999) as writer:
        await writer.begin(RUN, {})
        await writer.write(about(0))
        await writer.write(about(1))
        kept = output.read_bytes()
        output.write_bytes(spoilt)
        assert text_of(writer, 1) is None
        output.write_bytes(kept)
