"""Counts the records of earlier runs in an output file."""

import json
from collections.abc import Iterable
from pathlib import Path

from vlmbatch.writers.resume import RECORD_START, lines


def count_records(path: str, starts: Iterable[str]) -> int:
    """The number of records whose id begins with one of `starts`; 0 if `path` is no file or unreadable."""
    begins = tuple(RECORD_START + json.dumps(start)[1:-1].encode("ascii") for start in starts)
    try:
        if not Path(path).is_file():  # a pipe would block
            return 0
        with open(path, "rb") as file:
            return sum(line.startswith(begins) for line, _ in lines(file))
    except OSError:
        return 0
