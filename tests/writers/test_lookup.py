"""Answers are found in the output by the image's content and the prompt."""

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
    """An answer to one of many contents."""
    result = answered(f"p{number}.jpg", text)
    return replace(result, image=replace(result.image, sha256=SHA256[number]), **changes)


def text_of(writer: JsonlWriter, number: int, prompt: str = "default") -> str | None:
    found = writer.find(SHA256[number], prompt)
    return None if found is None else found["response"]


async def test_a_written_answer_can_be_found_at_once(tmp_path: Path) -> None:
    """Answers of any length that many tasks write at once are found by their content."""
    async with JsonlWriter(str(tmp_path / "o.jsonl"), OutputOptions()) as writer:
        await writer.begin(RUN, {})
        assert text_of(writer, 0) is None
        await asyncio.gather(*(writer.write(about(n, f"{n} " * 37 * n)) for n in range(200)))
        assert [text_of(writer, n) for n in range(200)] == [f"{n} " * 37 * n for n in range(200)]
        assert text_of(writer, 5, "other prompt") is None


async def test_answers_of_earlier_sessions_are_found(tmp_path: Path) -> None:
    """The last answer of this run to each content is found, but no failure, copy or other run's answer."""
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


async def test_many_searches_find_what_the_first_ones_find(tmp_path: Path) -> None:
    """An answer of an earlier session is found as often as needed, and a newer one of this session first."""
    output = tmp_path / "o.jsonl"
    await write(output, [about(n, text) for text in ("old", "new") for n in range(50)])
    async with JsonlWriter(str(output), OutputOptions()) as writer:
        await writer.begin(RUN, {})
        for _ in range(2):
            assert [text_of(writer, n) for n in range(51)] == ["new"] * 50 + [None]
        await writer.write(about(7, "newest"))
        assert text_of(writer, 7) == "newest"


async def test_overwritten_answers_are_not_found(tmp_path: Path) -> None:
    """With --overwrite, only new answers are found."""
    output = tmp_path / "o.jsonl"
    await write(output, [about(0), about(1)])
    async with JsonlWriter(str(output), OutputOptions(overwrite=True)) as writer:
        await writer.begin(RUN, {})
        assert text_of(writer, 0) is None
        await writer.write(about(1, "anew"))
        assert (text_of(writer, 0), text_of(writer, 1)) == (None, "anew")


@pytest.mark.parametrize("spoilt", [b"", b"\0" * 4000, b"{" * 4000])
async def test_a_damaged_file_gives_no_answer(tmp_path: Path, spoilt: bytes) -> None:
    """An answer that is no longer in the file is not found."""
    output = tmp_path / "o.jsonl"
    async with JsonlWriter(str(output), OutputOptions(), sync_every_s=999) as writer:
        await writer.begin(RUN, {})
        await writer.write(about(0))
        await writer.write(about(1))
        kept = output.read_bytes()
        output.write_bytes(spoilt)
        assert text_of(writer, 1) is None
        output.write_bytes(kept)
