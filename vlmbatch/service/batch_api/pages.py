"""Lists of ids in Redis, in the order of their time, and pages of them. All calls block."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vlmbatch.service.problems import Problem

if TYPE_CHECKING:
    from vlmbatch.jobs.connection import Connection

CHUNK = 500
"""This many items come from Redis at once."""


class _Named(Protocol):
    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=_Named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[N]):
    """A part of a list. `has_more`: items follow it."""

    items: Sequence[N]
    has_more: bool

    def as_object(self, of_item: Callable[[N], Mapping[str, Any]]) -> dict[str, Any]:
        """The list of OpenAI's form; `of_item` makes the object of an item."""
        return {
            "object": "list",
            "data": [of_item(item) for item in self.items],
            "first_id": self.items[0].id if self.items else None,
            "last_id": self.items[-1].id if self.items else None,
            "has_more": self.has_more,
        }


class SortedIds:
    """The ids of one client, as a sorted set in Redis."""

    def __init__(self, connection: "Connection", key: str) -> None:
        """`key` is the name of the set."""
        self._connection = connection
        self._key = key

    def page(
        self,
        load: Callable[[Sequence[str]], Iterator[N | None]],
        *,
        after: str | None,
        limit: int,
        newest_first: bool = True,
    ) -> Page[N]:
        """The items that follow the item with the id `after`, or the first ones.

        `load` gives the items with these ids, and None for those that the client does not want.

        Raises:
            Problem: no item has the id `after`.
        """
        wanted = (item for ids in self._ids(after, newest_first) for item in load(ids) if item is not None)
        items = list(islice(wanted, limit + 1))
        return Page(items=items[:limit], has_more=len(items) > limit)

    def _ids(self, after: str | None, newest_first: bool) -> Iterator[list[str]]:
        redis = self._connection.redis
        start = 0
        if after is not None:
            with self._connection.errors():
                rank: Any = (redis.zrevrank if newest_first else redis.zrank)(self._key, after)
            if rank is None:
                raise Problem("bad_option", "after is not an id of this list; use the last_id of a page")
            start = rank + 1
        while True:
            with self._connection.errors():
                ids = redis.zrange(self._key, start, start + CHUNK - 1, desc=newest_first)
            if not ids:
                return
            yield decoded_ids(ids)
            start += CHUNK


def decoded_ids(found: Any) -> list[str]:
    """The ids in a reply of Redis."""
    return [each.decode() for each in found]
