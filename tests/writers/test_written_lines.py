"""A record that a queue delivers twice is known, from the file or from this process."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from written_results import STAMP, answered, failed, write

from vlmbatch.images import FileStamp
from vlmbatch.writers.written_lines import WrittenLines

LATER = datetime(2026, 11, 23, tzinfo=UTC)


def test_a_record_is_noted_once() -> None:
    """The same record, and a second answer for the same version of an image, are known; all else is new."""
    written = WrittenLines()
    answer, failure = answered("a.jpg"), failed("b.jpg", retryable=True)
    assert written.note(answer)
    assert not written.note(answer)
    assert not written.note(replace(answer, started_at=LATER))
    assert written.note(answered("a.jpg", stamp=FileStamp(STAMP.bytes, 1.0)))
    assert written.note(answered("a.jpg", prompt="other"))
    assert written.note(failure)
    assert not written.note(failure)
    assert written.note(replace(failure, started_at=LATER))
    assert written.note(answered("b.jpg"))
    in_memory = answered("c", stamp=None)
    assert written.note(in_memory)
    assert written.note(replace(in_memory, started_at=LATER))


async def test_the_lines_of_a_file_are_known(tmp_path: Path) -> None:
    """A record that the file has is known as one from before; a missing file has none."""
    path = tmp_path / "o.jsonl"
    there, new = failed("a.jpg", retryable=True), failed("b.jpg", retryable=True)
    await write(path, [there])
    written = WrittenLines()
    written.read(str(tmp_path / "none"))
    written.read(str(path))
    assert (written.was_there(there), written.note(there)) == (True, False)
    assert (written.was_there(new), written.note(new), written.was_there(new)) == (False, True, False)
