"""Counting the records of earlier runs by the folder of their images."""

import os
from pathlib import Path

from written_results import answered, failed

from vlmbatch.records import to_line
from vlmbatch.writers.earlier_records import count_records


def test_records_are_counted_by_the_start_of_their_ids(tmp_path: Path) -> None:
    """Answers and failures below a folder of any name count, but not those below a longer name."""
    odd = os.fsdecode(b'caf\xe9 "x"\n\xc3\xa9')
    results = [answered("p/a.jpg"), failed("p/s/b.jpg"), answered("p2/c.jpg"), answered(f"{odd}/d.jpg")]
    output = tmp_path / "o.jsonl"
    output.write_bytes(b"".join(to_line(result.to_record()) for result in results) + b"\0\0torn")
    assert count_records(str(output), ["p/"]) == 2
    assert count_records(str(output), ["p2/", f"{odd}/"]) == 2
    assert count_records(str(output), [""]) == 4
    assert count_records(str(output), ["q/"]) == 0


def test_an_output_that_is_no_file_has_no_records(tmp_path: Path) -> None:
    """A FIFO is not opened, and an output that does not exist has no records."""
    os.mkfifo(tmp_path / "fifo")
    assert count_records(str(tmp_path / "fifo"), [""]) == 0
    assert count_records(str(tmp_path / "none"), [""]) == 0
