"""What cut an answer: --max-tokens, the context, or a limit of the endpoint."""

import pytest

from vlmbatch.backends.classify import check_answer
from vlmbatch.backends.classify.token_limits import TokenLimits
from vlmbatch.errors import BadAnswerError, Overflow
from vlmbatch.records import Usage


def limits(read: int, written: int, most: int, context: int | None) -> TokenLimits:
    return TokenLimits(
        usage=Usage(input_tokens=read, output_tokens=written), max_tokens=most, context=context
    )


def cut(found: TokenLimits, text: str = "A cat and", **marks: str) -> BadAnswerError:
    with pytest.raises(BadAnswerError) as caught:
        check_answer(text, "length", limits=found, **marks)
    return caught.value


@pytest.mark.parametrize(
    ("found", "told", "change"),
    [
        (limits(1900, 148, 512, 2048), "the context of 2,048 tokens is full: 1,900 for picture", "shrink"),
        (limits(1921, 127, 512, 2048), "127 for the answer; set a smaller --max-size", "shrink"),
        (limits(475, 37, 400, 512), "the context of 512 tokens is full", "shrink"),  # recorded of llama.cpp
        (limits(1900, 146, 512, 2048), "the context of 2,048 tokens is full", "shrink"),
        (limits(1900, 511, 512, 2411), "the context of 2,411 tokens is full", "shrink"),
        # Ollama gives a vision model at least 2,048 tokens, whatever --num-ctx says
        (limits(1900, 148, 512, 1024), "the context of 2,048 tokens is full", "shrink"),
        (limits(1900, 512, 512, 8192), "set a larger --max-tokens", "reseed"),
        (limits(1900, 511, 512, 8192), "set a larger --max-tokens", "reseed"),
        (limits(1536, 512, 512, 2048), "set a larger --max-tokens", "reseed"),
        (limits(0, 0, 512, 2048), "set a larger --max-tokens", "reseed"),
        (limits(1900, 148, 512, None), "cut the answer after 148 tokens, before the 512 of --max", "shrink"),
        (limits(1900, 148, 512, 8192), "look for another limit", "reseed"),
    ],
)
def test_the_limit_that_cut_an_answer_is_named(found: TokenLimits, told: str, change: str) -> None:
    """The message names the limit that cut the answer; if it is the context, a smaller picture is tried."""
    error = cut(found)
    assert (error.kind, error.change, error.partial) == ("truncated", change, "A cat and")
    assert told in str(error)
    assert ("larger --max-tokens" in str(error)) == (change == "reseed" and "another limit" not in told)


def test_a_full_context_says_how_much_room_an_answer_needs() -> None:
    """The room for the answer is --max-tokens, but at most three quarters of the context."""
    assert limits(1900, 148, 512, 2048).overflow == Overflow(
        input_tokens=1900, context=2048, output_tokens=512
    )
    assert limits(1000, 1048, 4000, 2048).overflow == Overflow(
        input_tokens=1000, context=2048, output_tokens=1536
    )
    assert limits(1900, 148, 512, None).overflow is None
    assert limits(1536, 512, 512, 2048).overflow is None


def test_an_answer_without_text_in_a_full_context_asks_for_a_smaller_picture() -> None:
    """An empty answer that the context cut is `truncated`; after thoughts, or with room left, `empty`."""
    assert (cut(limits(2047, 1, 512, 2048), "").kind, cut(limits(2047, 1, 512, 2048), " ").change) == (
        "truncated",
        "shrink",
    )
    assert cut(limits(1900, 148, 512, 2048), "", thinking="hmm").change == "no_thinking"
    assert cut(limits(100, 512, 512, 2048), "").change == "no_thinking"


def test_a_loop_up_to_the_end_of_the_context_gets_another_seed() -> None:
    """A smaller picture would only make the loop longer."""
    error = cut(limits(1900, 148, 512, 2048), "abc " * 50)
    assert error.change == "reseed"
    assert str(error) == "the answer repeats itself up to the end of the context"


@pytest.mark.parametrize(
    ("found", "warning"),
    [
        (
            limits(1900, 148, 512, 2048),
            "the answer was accepted although the context of 2,048 tokens cut it after 148 tokens",
        ),
        (
            limits(1900, 148, 512, None),
            "the answer was accepted although the endpoint cut it after 148 tokens",
        ),
        (limits(1900, 512, 512, 8192), "the answer was accepted although --max-tokens cut it"),
    ],
)
def test_an_accepted_cut_names_its_limit(found: TokenLimits, warning: str) -> None:
    """With --accept length, the warning names the limit that cut the answer."""
    assert check_answer("A cat and", "length", accept=frozenset(("length",)), limits=found) == (warning,)
