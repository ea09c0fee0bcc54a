"""Scopes: a session that several clients share reuses no answer of one client for another."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from endpoint import Endpoint
from pipeline.test_session import at, encoded, until

from vlmbatch.errors import ConfigError
from vlmbatch.prompts.checking import CHECKER
from vlmbatch.sessions import open_session

PHOTO = encoded((1, 2, 3))
SCHEMA = {"type": "object"}


@contextmanager
def stopped_checks() -> Iterator[None]:
    """The process of the checks does not go on inside the ``with``."""
    assert CHECKER.check("{}", [1]) == [None]
    assert CHECKER._process is not None
    process = CHECKER._process.pid
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_scopes_share_no_request_and_no_recent_answer(endpoint: Endpoint) -> None:
    """Two scopes that ask the same at once send two requests; the same scope sends one, then and later."""
    endpoint.script = lambda request: "held"
    async with open_session(**at(endpoint)) as session:
        plain = session.question(prompt="Which colour?")
        mine, other = plain.within("mine"), plain.within("other")
        asked = (mine, mine, other)
        calls = [asyncio.create_task(session.answer(PHOTO, question)) for question in asked]
        await until(lambda: len(endpoint.questions) == 2)
        endpoint.released = True
        first, second, third = await asyncio.gather(*calls)
        later = await session.answer(PHOTO, mine)
        assert len(endpoint.questions) == 2
        unscoped = await session.answer(PHOTO, plain)
    assert len(endpoint.questions) == 3
    known = [first.is_known, second.is_known]
    assert (sorted(known), later.is_known) == ([False, True], True)
    assert not third.is_known
    assert not unscoped.is_known
    assert {each.run for each in (first, third, unscoped)} == {plain.run}
    assert "mine" not in str(first.to_record())


async def test_scopes_share_no_cache(endpoint: Endpoint, tmp_path: Path) -> None:
    """A cache returns an answer only to the scope that caused it, in a later session, too."""
    options = at(endpoint, cache=str(tmp_path / "cache"), dedupe=False)
    scopes = ("", "mine", "other")
    for is_known in (False, True):
        async with open_session(**options) as session:
            question = session.question()
            for scope in scopes[:2]:
                assert (await session.answer(PHOTO, question.within(scope))).cached is is_known
    async with open_session(**options) as session:
        assert not (await session.answer(PHOTO, session.question().within("other"))).cached
    assert len(endpoint.questions) == len(scopes)


async def test_a_question_within_a_scope_does_not_block_the_loop(endpoint: Endpoint) -> None:
    """While the schema of a client is checked, other work goes on; a bad schema is a ConfigError."""
    async with open_session(**at(endpoint)) as session:
        with stopped_checks():
            asking = asyncio.create_task(session.question_within("mine", schema=SCHEMA, max_tokens=7))
            await until(CHECKER._lock.locked)
            assert (await session.answer(PHOTO, session.question())).ok
            assert not asking.done()
        question = await asking
        with pytest.raises(ConfigError, match="refers to itself without end"):
            await session.question_within("mine", schema={"$ref": "#"})
    assert (question.scope, question.request.generation.max_tokens) == ("mine", 7)


async def test_the_checks_of_scopes_take_turns(endpoint: Endpoint) -> None:
    """A client whose answers wait for their check in great number delays another by one of them."""
    endpoint.answer = lambda request: "{}"
    order: list[str] = []
    async with open_session(**at(endpoint)) as session:
        question = session.question(schema=SCHEMA)

        async def ask(scope: str, number: int) -> None:
            assert (await session.answer(encoded((30 * number, 0, 0)), question.within(scope))).ok
            order.append(scope)

        with stopped_checks():
            calls = [asyncio.create_task(ask("many", number)) for number in range(8)]
            await until(lambda: len(CHECKER.turns._waiting.get("many", ())) == 7)
            calls.append(asyncio.create_task(ask("one", 8)))
            await until(lambda: "one" in CHECKER.turns._waiting)
        await asyncio.gather(*calls)
    assert order.index("one") < 4
