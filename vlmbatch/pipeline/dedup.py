"""Deduplication: sends the same question about the same content once, and reuses earlier answers."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from vlmbatch.cache import Cache
from vlmbatch.pipeline.stored import answered_in
from vlmbatch.prompts.schemas import AnswerSchema
from vlmbatch.protocols import Writer
from vlmbatch.records import Answered, Completion, Failure, Result, Usage

RECENT = 4096
"""Memory holds this many of the last answers, about a kilobyte each; an output may lack them, or not have
them yet."""


class Key(NamedTuple):
    """A content (see records.content_of), and the fingerprint, name and scope of a question about it."""

    content: str
    run: str
    prompt: str
    scope: str = ""


class Turn(Enum):
    """Which task sends the request if no answer is stored."""

    SEND = "the task that looked"
    WAIT = "another task, which has begun already"


class Deduplicator:
    """Earlier answers by key. Only look() runs in threads, all else in the event loop."""

    def __init__(self, *, output: Writer | None, cache: Cache | None, enabled: bool = True) -> None:
        """`output` holds the answers of this run so far, `cache` those of earlier runs.

        If not `enabled`, each image gets its own request, unless the cache has the answer.
        """
        self._output = output
        self._cache = cache
        self._enabled = enabled
        self._recent: OrderedDict[Key, Answered] = OrderedDict()
        self._failed_once: OrderedDict[Key, None] = OrderedDict()
        self._held_by: dict[Key, Hashable] = {}
        self._held: dict[Hashable, Key] = {}
        self._waiting: dict[Key, list[asyncio.Future[None]]] = {}
        self._lock = threading.Lock()

    def look(self, key: Key, task: Hashable, schema: AnswerSchema | None = None) -> Answered | Turn:
        """The stored answer; else whether this task sends the request or waits for another task. Blocks.

        `schema` parses the stored answer; an answer that it refuses is not used. If the task does not have to
        wait, it holds the question until release().
        """
        if self._enabled:
            with self._lock:
                if self._held_by.setdefault(key, task) is not task:
                    return Turn.WAIT
                self._held[task] = key
        return self._found(key, schema) or Turn.SEND

    async def settled(self, key: Key) -> None:
        """Return once no task holds this question."""
        with self._lock:
            if key not in self._held_by:
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append(future)
        await future

    def release(self, task: Hashable, result: Result | None) -> None:
        """The task has ended with this result; the question it held, if any, is free."""
        with self._lock:
            key = self._held.pop(task, None)
            if key is None:
                return
            if result is not None and (known := self._known_from(result, key)) is not None:
                self._recent[key] = known
                if len(self._recent) > RECENT:
                    self._recent.popitem(last=False)
            del self._held_by[key]
            waiting = self._waiting.pop(key, ())
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _known_from(self, result: Result, key: Key) -> Answered | None:
        """The answer for other images of this content; None if there is none, or the file has changed."""
        if result.is_known or result.content != key.content:
            return None
        if result.completion is not None:
            # the other images cost nothing
            free = replace(result.completion, usage=Usage(), warnings=result.warnings, cost=None, parsed=None)
            return _answered(result, free)
        if result.failure is None or not result.attempts or not self._is_proven(result.failure, key):
            return None
        return _answered(result, result.failure)

    def _is_proven(self, failure: Failure, key: Key) -> bool:
        """Whether the content itself fails: at its second failure, or at once if it crashes the engine."""
        if failure.kind == "crash" or key in self._failed_once:
            self._failed_once.pop(key, None)
            return True
        self._failed_once[key] = None
        if len(self._failed_once) > RECENT:
            self._failed_once.popitem(last=False)
        return False

    def _found(self, key: Key, schema: AnswerSchema | None) -> Answered | None:
        """The first stored answer that the schema does not refuse."""
        parsed = (_parsed(known, schema) for known in self._stored(key))
        return next((known for known in parsed if known is not None), None)

    def _stored(self, key: Key) -> Iterator[Answered]:
        """The stored answers: one from memory or from the output, and one from the cache."""
        if self._enabled:
            with self._lock:
                known = self._recent.get(key)
            if known is None and self._output is not None:
                record = self._output.find(key.content, key.prompt)
                known = answered_in(record, key.content, in_output=True)
            if known is not None:
                yield known
        if self._cache is not None:
            record = self._cache.find(key.run, key.content, key.prompt, scope=key.scope)
            known = answered_in(record, key.content, in_output=False)
            if known is not None:
                yield known


def _parsed(known: Answered, schema: AnswerSchema | None) -> Answered | None:
    """The stored answer, with its completion parsed; None if the schema's class refuses it."""
    if schema is None or not isinstance(known.outcome, Completion):
        return known
    completion = schema.parse_stored(known.outcome)
    return None if completion is None else replace(known, outcome=completion)


def _answered(result: Result, outcome: Completion | Failure) -> Answered:
    return Answered(
        id=result.id,
        outcome=outcome,
        image=result.image,
        more_images=result.more_images,
        endpoint=result.endpoint,
        fallback=result.fallback,
    )
