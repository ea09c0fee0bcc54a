"""Make a file end at a whole line again after a crash; what is taken away is kept beside it."""

import os
from datetime import UTC, datetime
from pathlib import Path

from vlmbatch.writers.resume import Contents


def repair(path: str, contents: Contents) -> str | None:
    """Complete the last line where only its newline is missing, else cut it off.

    Returns where the bytes cut off are kept, None where none were.

    Raises:
        OSError: the file, or the one that keeps the bytes, cannot be written; nothing is lost.
    """
    if not contents.tail:
        return None
    if contents.tail_is_whole:
        with open(path, "ab", buffering=0) as file:
            file.write(b"\n")
        return None
    kept = f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    with open(kept, "ab") as file:  # appends, for there may be two within a second
        file.write(contents.tail)
        file.flush()
        os.fsync(file.fileno())
    os.truncate(path, Path(path).stat().st_size - len(contents.tail))
    return kept
