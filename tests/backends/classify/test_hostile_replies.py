"""Replies that are made to keep the client busy: each is several hundred kilobytes of nearly nothing."""

import pytest

from vlmbatch.backends.classify import classify_error
from vlmbatch.backends.classify.body import answer_in
from vlmbatch.backends.classify.thoughts import MOST_PARTS, without_thinking
from vlmbatch.records import Request


@pytest.mark.parametrize("line", ["{\n", '{"a":\n', "{}x\n"])
def test_a_reply_of_unreadable_lines_is_given_up_early(line: str) -> None:
    """A reply of a million beginnings of objects is no answer, and reading it does not take hours."""
    assert answer_in(line * 1_000_000) is None
    assert classify_error(200, line * 1_000_000, {}).kind == "bad_response"


def test_a_stream_with_a_few_broken_lines_still_shows_its_error() -> None:
    """An error behind an unreadable line of a stream is found."""
    body = '{"choices": [\n' * 3 + '{"error": {"message": "CUDA error: an illegal memory access"}}\n'
    assert "CUDA error" in str(classify_error(200, body, {}))


def test_thinking_in_endless_parts_is_taken_out_in_part() -> None:
    """A million empty parts of thinking end as an answer; only the first hundred are taken out."""
    told = without_thinking("<think></think>" * 1_000_000, Request(images=(), prompt="What is this?"))
    assert told.answer == "<think></think>" * (1_000_000 - MOST_PARTS)


def test_the_type_of_an_error_is_shortened() -> None:
    """An error whose type is a megabyte long is classified by its beginning."""
    body = '{"error": {"message": "no", "type": "%s"}}' % ("context " * 200_000)
    assert max(map(len, classify_error(400, body, {}).marks)) <= 500
