"""Reads the lines of an input file. All calls block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from vlmbatch.service.batch_api.fields import ENDPOINT, LONGEST_CUSTOM_ID, LineFields
from vlmbatch.service.chat_fields import Conversation
from vlmbatch.service.models import Asked
from vlmbatch.service.problems import Problem
from vlmbatch.service.reading import json_object, validated

MOST_LINES = 50_000
LARGEST_FILE = 200_000_000
"""In bytes."""
_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_EXAMPLE = f'{{"custom_id": "...", "method": "POST", "url": "{ENDPOINT}", "body": {{...}}}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLine:
    """A line of the input file with its number, from 1: a request, or the problem with it."""

    number: int
    custom_id: str | None
    request: "LineRequest | None" = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRequest:
    """What a line asks."""

    model: str | None
    asked: Asked
    urls: tuple[str, ...]


class InputLines:
    """The lines of an open input file."""

    def __init__(self, source: BinaryIO, longest: int) -> None:
        """A line has at most `longest` bytes."""
        self._source = source
        self._longest = longest
        self._number = 0
        self._seen: set[str] = set()

    def next(self, most: int, most_bytes: int) -> list[InputLine]:
        """The next lines: about `most`, and about `most_bytes`. Empty at the end of the file."""
        lines, size = [], 0
        for content in self._contents():
            if content is None or content.strip():
                lines.append(self._line(content))
            size += len(content or b"")
            if len(lines) >= most or size >= most_bytes:
                break
        return lines

    def _contents(self) -> Iterator[bytes | None]:
        """The bytes of each line; None for one that is too long."""
        while content := self._source.readline(self._longest + 1):
            self._number += 1
            if self._number == 1:
                content = content.removeprefix(_BOM)
            if len(content) <= self._longest:
                yield content
                continue
            while content and not content.endswith(b"\n"):
                content = self._source.readline(_BLOCK)
            yield None

    def _line(self, content: bytes | None) -> InputLine:
        custom_id = None
        try:
            if content is None:
                raise Problem("too_large", f"it has more than {self._longest:,} bytes; use a smaller image")
            values = json_object(content, "it", _EXAMPLE)
            custom_id = _custom_id(values)
            request = _request(values)
            self._check_new(custom_id)
            return InputLine(number=self._number, custom_id=custom_id, request=request)
        except Problem as problem:
            return InputLine(number=self._number, custom_id=custom_id, problem=problem)

    def _check_new(self, custom_id: str | None) -> None:
        """Raise a Problem if an earlier request has this custom_id."""
        if custom_id in self._seen:
            raise Problem("bad_option", "an earlier line has the same custom_id; write another one")
        self._seen.add(custom_id or "")


def check_input(source: BinaryIO) -> None:
    """Check an uploaded file as a whole.

    Raises:
        Problem: it is empty, too large, or has too many lines.
    """
    size = lines = 0
    while block := source.read(_BLOCK):
        size += len(block)
        lines += block.count(b"\n")
    source.seek(0)
    if size == 0:
        raise Problem("bad_request", f"the file is empty; write one JSON object in each line: {_EXAMPLE}")
    if size > LARGEST_FILE:
        raise Problem("too_large", f"the file has more than {LARGEST_FILE:,} bytes; split it")
    if lines > MOST_LINES:
        raise Problem("bad_option", f"the file has more than {MOST_LINES:,} lines; split it")


def _custom_id(values: dict[str, Any]) -> str | None:
    """The custom_id, also of a line that is wrong."""
    custom_id = values.get("custom_id")
    return custom_id[:LONGEST_CUSTOM_ID] if isinstance(custom_id, str) else None


def _request(values: dict[str, Any]) -> LineRequest:
    """What these values ask; raises a Problem if they are wrong."""
    body = validated(LineFields, values, strict=True).body
    if body.stream:
        raise Problem("bad_option", "body.stream is true, and a batch has no streams; leave stream out")
    body.refuse_unsupported()
    said = Conversation.of(body)
    return LineRequest(model=body.model, asked=body.asked(said), urls=said.urls)
