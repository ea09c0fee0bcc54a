"""How many bytes of a reply are read. A request for a short answer gets no long reply."""

from dataclasses import dataclass
from typing import Self

MEGABYTE = 1024**2
MOST_BYTES = 64 * MEGABYTE
"""No reply may be larger, once it is decompressed."""
_BASE_BYTES = 4 * MEGABYTE
"""Room for thinking, which some servers do not count, and for a server's own fields."""
_TOKEN_BYTES = 2048
"""A token may be longer than a hundred characters of six bytes each (\\uXXXX). An event of a stream has 500
bytes, and a logprob with its `bytes` 300."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyLimit:
    """The largest reply that is read; `why` says what the limit depends on, for a message."""

    bytes: int
    why: str

    @classmethod
    def of_answer(cls, max_tokens: int, alternatives: int | None) -> Self:
        """The limit for an answer of this many tokens, each with logprobs of this many alternatives."""
        wanted = _BASE_BYTES + _TOKEN_BYTES * max_tokens * (1 + (alternatives or 0))
        asked = f"--max-tokens {max_tokens:,}" + (f" and --logprobs {alternatives}" if alternatives else "")
        return cls(bytes=min(wanted, MOST_BYTES), why=f"the limit for {asked}")

    def __str__(self) -> str:
        return f"{self.bytes / MEGABYTE:.3g} MB, {self.why}"


OF_HINTS = ReplyLimit(bytes=4 * MEGABYTE, why="the limit for a reply that is not an answer")
"""Long lists of models have 1.5 MB. JSON may take 25 times its size in memory."""
LARGEST = ReplyLimit(bytes=MOST_BYTES, why="the limit for every reply")
"""For a request whose options may ask for any size."""
