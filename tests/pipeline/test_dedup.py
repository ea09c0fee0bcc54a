"""The deduplicator: which image is sent, which waits for the answer of another, and which reuses one."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from written_results import RUN, answered, failed

from vlmbatch.pipeline import dedup as module
from vlmbatch.pipeline.dedup import Deduplicator, Key, Turn
from vlmbatch.pipeline.stored import answered_in
from vlmbatch.records import Answered, Completion, Failure, Result, Usage

SHA256 = "ab" * 32
KEY = Key(content=SHA256, run=RUN, prompt="default")


def seen(result: Result, sha256: str = SHA256) -> Result:
    """The result of an image with this content."""
    return replace(result, image=replace(result.image, sha256=sha256))


class Holding:
    """An output or a cache that holds this one result."""

    def __init__(self, result: Result) -> None:
        self.record = result.to_record()

    def find(self, *key: str, scope: str = "") -> Mapping[str, Any] | None:
        is_it = key[-2:] == (self.record["image"]["sha256"], self.record["prompt"])
        return self.record if is_it else None


def holding(result: Result) -> Any:
    """The same, with the type of a parameter."""
    return Holding(result)


async def test_the_second_waits_for_the_first_and_gets_its_answer() -> None:
    """Of two images with the same content one is sent, and the other reuses its answer at no cost."""
    answers = Deduplicator(output=None, cache=None)
    assert answers.look(KEY, "first") is Turn.SEND
    assert answers.look(KEY, "second") is Turn.WAIT
    waiting = asyncio.create_task(answers.settled(KEY))
    await asyncio.sleep(0)
    assert not waiting.done()
    usage = Usage(input_tokens=600, output_tokens=40)
    completion = Completion(text="A cat.", model="llava:7b", finish_reason="stop", usage=usage)
    answers.release("first", seen(replace(answered("a.jpg"), completion=completion, warnings=("odd",))))
    await waiting
    known = answers.look(KEY, "second")
    assert isinstance(known, Answered)
    assert isinstance(known.outcome, Completion)
    assert (known.id, known.outcome.text, known.outcome.usage) == ("a.jpg", "A cat.", Usage())
    assert known.outcome.warnings == ("odd",)


async def test_a_content_that_failed_twice_is_not_sent_again() -> None:
    """If the first image of a content fails, a second is sent; if it fails too, others reuse its failure."""
    answers = Deduplicator(output=None, cache=None)
    outcomes = [None, seen(failed("a.jpg", attempts=4)), None, seen(failed("b.jpg", attempts=4))]
    for who, result in enumerate(outcomes):
        assert answers.look(KEY, who) is Turn.SEND
        answers.release(who, result)
        await answers.settled(KEY)
    known = answers.look(KEY, "another")
    assert isinstance(known, Answered)
    assert isinstance(known.outcome, Failure)
    assert known.id == "b.jpg"


async def test_a_failure_without_a_request_is_not_reused() -> None:
    """A failure without an attempt is not reused for other images; a crash is reused at once."""
    answers = Deduplicator(output=None, cache=None)
    for who in range(5):
        assert answers.look(KEY, who) is Turn.SEND
        answers.release(who, seen(failed("a.jpg")))
    assert answers.look(KEY, 5) is Turn.SEND
    answers.release(5, seen(failed("a.jpg", kind="crash", attempts=3)))
    assert isinstance(answers.look(KEY, 6), Answered)


async def test_another_run_is_another_question() -> None:
    """The same content is sent again if the question is a different one."""
    answers = Deduplicator(output=None, cache=None)
    assert answers.look(KEY, 1) is Turn.SEND
    assert answers.look(KEY._replace(run="another"), 2) is Turn.SEND


async def test_an_answer_in_the_output_is_reused() -> None:
    """A new image reuses an answer that the output has for the same content, as a duplicate."""
    known = Deduplicator(output=holding(seen(answered("old.jpg"))), cache=None).look(KEY, 1)
    assert isinstance(known, Answered)
    assert known.id == "old.jpg"


async def test_an_answer_in_the_cache_is_reused_but_no_duplicate() -> None:
    """An answer from the cache names no original, since the output may not have that image."""
    known = Deduplicator(output=None, cache=holding(seen(answered("old.jpg")))).look(KEY, 1)
    assert isinstance(known, Answered)
    assert known.id is None


async def test_without_dedupe_no_image_waits() -> None:
    """With --no-dedupe each image is sent and none waits, but answers in the cache are reused."""
    answers = Deduplicator(output=None, cache=None, enabled=False)
    assert [answers.look(KEY, who) for who in range(3)] == [Turn.SEND] * 3
    answers.release(0, seen(answered("a.jpg")))
    assert answers.look(KEY, 3) is Turn.SEND
    await answers.settled(KEY)
    cached = Deduplicator(output=None, cache=holding(seen(answered("a.jpg"))), enabled=False)
    assert isinstance(cached.look(KEY, 0), Answered)


async def test_an_answer_of_a_changed_file_is_not_reused() -> None:
    """If a file changed before it was sent, its answer is not reused for images of the old content."""
    answers = Deduplicator(output=None, cache=None)
    assert answers.look(KEY, 1) is Turn.SEND
    answers.release(1, seen(answered("a.jpg"), "cd" * 32))
    assert answers.look(KEY, 2) is Turn.SEND


async def test_only_recent_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds only the last RECENT answers, even if there are more images."""
    monkeypatch.setattr(module, "RECENT", 10)
    answers = Deduplicator(output=None, cache=None)
    keys = [KEY._replace(content=f"{n:064}") for n in range(25)]
    for key in keys:
        answers.look(key, key)
        answers.release(key, seen(answered("a.jpg"), key.content))
    known = [isinstance(answers.look(key, ("again", key)), Answered) for key in keys]
    assert known == [False] * 15 + [True] * 10


@pytest.mark.parametrize(
    "broken",
    [
        {"status": "error"},
        {"response": ...},
        {"image": {"sha256": "cd" * 32}},
        {"image": None},
        {"image": {"sha256": SHA256, "colour": 7}},
        {"warnings": None},
    ],
)
def test_an_edited_record_is_not_reused(broken: dict[str, Any]) -> None:
    """A record that is no complete answer about this content is not reused."""
    record = seen(answered("a.jpg")).to_record()
    assert answered_in(record, SHA256, in_output=True) is not None
    edited = {key: value for key, value in (record | broken).items() if value is not ...}
    assert answered_in(edited, SHA256, in_output=True) is None
