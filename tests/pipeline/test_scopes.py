"""Scopes: a session that several clients share reuses no answer of one client for another."""

import asyncio
from pathlib import Path

from endpoint import Endpoint
from pipeline.test_session import at, encoded, until

from vlmbatch.sessions import open_session

PHOTO = encoded((1, 2, 3))


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
