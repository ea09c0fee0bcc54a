"""Code of a user in which no type checker finds a mistake; it is checked and not run."""

# pyright: strict

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel, RootModel

from vlmbatch import (
    Batch,
    Completion,
    Question,
    Result,
    RunConfig,
    Session,
    SyncSession,
    open_session,
    run_batch,
)


class Animal(BaseModel):
    """One animal."""

    name: str
    legs: int = 4


class Animals(RootModel[list[Animal]]):
    """Several animals."""


def options() -> None:
    """Options have the types that the program takes."""
    run_batch("photos", Path("more"), prompt="Describe it.", model="llava", backend="ollama", max_tokens=9)
    run_batch("photos", max_size="auto", max_pixels="2MP", max_bytes="100MB", temperature=1, timeout="5m")
    run_batch("photos", max_size=768, max_pixels=2_000_000, max_bytes=10**8, timeout=90, concurrency="auto")
    run_batch("photos", include="*.jpg", exclude=["a", "b"], base_url=("http://a", "http://b"), rpm=None)
    run_batch("photos", output=Path("o.jsonl"), cache=Path("cache"), prompt_file="p", extra_body={"top_k": 1})
    some: dict[str, Any] = {"model": "llava"}
    run_batch("photos", **some)


def instances() -> Iterator[str]:
    """With a pydantic class, the type of the parsed answer is known."""
    for result in run_batch("photos", schema=Animal):
        assert_type(result, Result[Animal])
        assert_type(result.parsed, Animal | None)
        assert_type(result.text, str | None)
        assert_type(result.error, str | None)
        completion = result.raise_for_failure()
        assert_type(completion, Completion[Animal])
        assert_type(completion.text, str)
        yield completion.parsed.name
        if result.parsed:
            yield result.parsed.name
    assert_type(run_batch("photos", schema=Animals), Batch[Animals])
    assert_type(run_batch(config=RunConfig.of("photos", quiet=True), schema=Animal), Batch[Animal])


def json_values() -> None:
    """With any other schema, or without one, the parsed answer is of any type."""
    assert_type(run_batch("photos"), Batch[Any])
    assert_type(run_batch("photos", schema={"type": "object"}), Batch[Any])
    assert_type(run_batch("photos", schema=Path("schema.json")), Batch[Any])
    assert_type(run_batch("photos", schema='{"type": "object"}'), Batch[Any])
    for result in run_batch("photos", schema={"type": "object"}):
        result.raise_for_failure().parsed["colour"].upper()


def show(result: Result, question: Question, batch: Batch) -> Result:
    """The classes need no type in brackets."""
    assert_type(result.raise_for_failure().parsed, Any)
    assert_type(question, Question[Any])
    assert_type(batch, Batch[Any])
    return result


def wider(result: Result[object], batch: Batch[Animal | None]) -> None:
    """A result with an animal is also one with any object."""
    assert_type(result.parsed, object | None)
    assert_type(batch, Batch[Animal | None])


async def in_a_loop() -> None:
    """A session gives results of the type of the question."""
    async with open_session(model="llava", schema={"type": "object"}) as session:
        assert_type(session, Session)
        animal, text = session.question(schema=Animal, max_tokens=50), session.question(prompt="Read it.")
        assert_type(animal, Question[Animal])
        result = await session.answer("photos/cat.jpg", animal)
        assert_type(result, Result[Animal])
        wider(show(result, animal, run_batch("photos")), run_batch("photos", schema=Animal))
        async for each in session.answer_many((path, animal) for path in Path("photos").iterdir()):
            assert_type(each, Result[Animal])
        async for other in session.answer_many([("a.jpg", text), ("b.jpg", text)]):
            assert_type(other, Result[Any])
    async for plain in run_batch("photos", schema=Animal):
        assert_type(plain.parsed, Animal | None)


def in_threads() -> None:
    """The session for threads has the same types."""
    with open_session(model="llava") as session:
        assert_type(session, SyncSession)
        question = session.question(schema=Animal)
        assert_type(session.answer(["a.jpg", b"b"], question, deadline_s=3).parsed, Animal | None)
        for result in session.answer_many([("a.jpg", question)]):
            assert_type(result, Result[Animal])
