"""Make a file end at a whole line again after a crash; what is taken away is kept beside it."""

import os
from datetime import UTC, datetime
from pathlib import Path

from vlmbatch.writers.resume import Contents

CHUNK = 1 << 20


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
    end = Path(path).stat().st_size - contents.tail
    # written behind what is there, for there may be two within a second
    with open(path, "rb") as torn, open(kept, "r+b" if Path(kept).exists() else "wb") as file:
        torn.seek(end)
        file.seek(0, os.SEEK_END)
        while chunk := torn.read(CHUNK):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:  # zeros without end, as a power cut leaves them, take no place on the disk
                file.seek(len(chunk), os.SEEK_CUR)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.truncate(path, end)
    return kept
