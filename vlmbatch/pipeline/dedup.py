"""What was answered before, and what is being asked now: nothing is asked twice about the same content."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from vlmbatch.images import ImageFacts
from vlmbatch.protocols import Key, Turn
from vlmbatch.records import Answered, Completion, Endpoint, Failure, Fallback, Result, Usage

RECENT = 4096
"""So many answers are kept here, at about a kilobyte each: those that no output keeps, or not yet."""

Find = Callable[[str, str], Mapping[str, Any] | None]
"""The record of an answer about a file with this SHA-256 to the prompt of this name; blocks."""


class Deduplicator:
    """See protocols.Deduplicator: looking is done in threads, all else in the event loop."""

    def __init__(self, *, output: Find | None, cache: Find | None) -> None:
        """`output` finds what this run's own output holds, None where duplicates are asked about; `cache`
        what earlier runs have left.
        """
        self._output = output
        self._cache = cache
        self._recent: OrderedDict[Key, Answered] = OrderedDict()
        self._failed_once: OrderedDict[Key, None] = OrderedDict()
        self._asked_by: dict[Key, Hashable] = {}
        self._held: dict[Hashable, Key] = {}
        self._waiting: dict[Key, list[asyncio.Future[None]]] = {}
        self._lock = threading.Lock()

    def look(self, key: Key, who: Hashable) -> Answered | Turn:
        """See protocols.Deduplicator."""
        if self._output is not None:
            with self._lock:
                if self._asked_by.setdefault(key, who) is not who:
                    return Turn.WAIT
                self._held[who] = key
        return self._found(key) or Turn.ASK

    async def settled(self, key: Key) -> None:
        """See protocols.Deduplicator."""
        with self._lock:
            if key not in self._asked_by:
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append(future)
        await future

    def release(self, who: Hashable, result: Result | None) -> None:
        """See protocols.Deduplicator."""
        with self._lock:
            key = self._held.pop(who, None)
            if key is None:
                return
            if result is not None and (known := self._known_from(result, key)) is not None:
                self._recent[key] = known
                if len(self._recent) > RECENT:
                    self._recent.popitem(last=False)
            del self._asked_by[key]
            waiting = self._waiting.pop(key, ())
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _known_from(self, result: Result, key: Key) -> Answered | None:
        """What others of this content need not ask any more; their files may have changed since."""
        if result.is_known or result.image.sha256 != key[0]:
            return None
        if result.completion is not None:
            free = replace(
                result.completion, usage=Usage(), warnings=result.warnings, cost=None
            )  # they pay nothing
            return _answered(result, free)
        if result.failure is None or not result.attempts or not self._is_proven(result.failure, key):
            return None
        return _answered(result, result.failure)

    def _is_proven(self, failure: Failure, key: Key) -> bool:
        """Whether a failure is the content's own: where another failed before; at once where engines die."""
        if failure.kind == "crash" or key in self._failed_once:
            self._failed_once.pop(key, None)
            return True
        self._failed_once[key] = None
        if len(self._failed_once) > RECENT:
            self._failed_once.popitem(last=False)
        return False

    def _found(self, key: Key) -> Answered | None:
        sha256, _ = key
        if self._output is not None:
            with self._lock:
                known = self._recent.get(key)
            if known := known or answered_in(self._output(*key), sha256, in_output=True):
                return known
        return None if self._cache is None else answered_in(self._cache(*key), sha256, in_output=False)


def _answered(result: Result, outcome: Completion | Failure) -> Answered:
    return Answered(
        id=result.id,
        outcome=outcome,
        image=result.image,
        endpoint=result.endpoint,
        fallback=result.fallback,
    )


def answered_in(record: Mapping[str, Any] | None, sha256: str, *, in_output: bool) -> Answered | None:
    """The answer in a record about a file with this SHA-256; None where it is not one.

    Somebody may have edited the file that the record is from.
    """
    try:
        if record is None or record["status"] != "ok" or record["image"]["sha256"] != sha256:
            return None
        return Answered(
            id=str(record["id"]) if in_output else None,
            outcome=Completion(
                text=str(record["response"]),
                model=str(record["model"]),
                finish_reason=str(record["finish_reason"]),
                warnings=tuple(map(str, record["warnings"])),
                data=record.get("data"),
                logprobs=record.get("logprobs"),
            ),
            image=ImageFacts(**record["image"]),
            endpoint=Endpoint(
                backend=str(record["backend"]), url=str(record["endpoint"]), model=str(record["model"])
            ),
            fallback=Fallback(**record["fallback"]) if record.get("fallback") else None,
        )
    except (KeyError, TypeError):
        return None
