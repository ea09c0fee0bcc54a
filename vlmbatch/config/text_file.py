"""Reads the text files that a user names: prompts, schemas, prices, URLs and options."""

import codecs
import os
from pathlib import Path

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its byte order mark; line breaks stay as they are.

    Windows writes such marks: PowerShell's ``>`` before UTF-16, and Notepad before UTF-8, too.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not such a text.
    """
    return decoded(Path(path).read_bytes())


def decoded(data: bytes) -> str:
    """The text in these bytes of such a file; raises UnicodeDecodeError if they are not such a text."""
    text = data.decode("utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig")
    if "\0" in text:  # UTF-16 without its mark, or UTF-32, whose bytes are also UTF-8
        at = data.index(b"\0")
        raise UnicodeDecodeError("utf-8", data, at, at + 1, "it has a NUL, as UTF-16 without a mark has")
    return text
