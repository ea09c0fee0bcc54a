"""The pairs of image and question that answer_many() takes."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TypeAlias, TypeVar

from vlmbatch.aio import ReadAhead
from vlmbatch.pipeline.question import Question
from vlmbatch.sources.given import GivenImage

ITEMS_AHEAD = 16
"""This many pairs of a blocking iterable are read ahead."""

T = TypeVar("T")
ImageAndQuestion: TypeAlias = tuple["GivenImage | Sequence[GivenImage]", Question[T]]
"""One item of answer_many(): an image, or several for one request, and the question about them."""


async def in_thread(items: Iterable[ImageAndQuestion[T]]) -> AsyncGenerator[ImageAndQuestion[T], None]:
    """The items of an iterable that may block."""
    ahead = ReadAhead(map(checked_pair, items), ahead=ITEMS_AHEAD, name="vlmbatch-items")
    try:
        while (item := await ahead.take()) is not None:
            yield item
    finally:
        ahead.close()


def checked_pair(item: ImageAndQuestion[T]) -> ImageAndQuestion[T]:
    """The item of answer_many(); raises a TypeError if it is no pair. None would end the loop too early."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise TypeError(f"answer_many() takes pairs of image and question, not {item!r:.60}")
    return item
