"""The size of pictures that did not fit into a context."""

from dataclasses import replace

import pytest

from vlmbatch.errors import Overflow
from vlmbatch.images import PreparedImage
from vlmbatch.imaging.fitting import LEAST_PIXELS, REDUCED, Misfit, fitting_pixels, marked
from vlmbatch.imaging.sizing import Sizing
from vlmbatch.records import Generation, Request

PIXELS = 1024 * 768
PICTURE = PreparedImage(
    data=b"",
    media_type="image/jpeg",
    width=1024,
    height=768,
    original_width=4000,
    original_height=3000,
    sent_bytes=0,
)


def request(prompt: str = "What is it?", max_tokens: int = 512) -> Request:
    return Request(images=(PICTURE,), prompt=prompt, generation=Generation(max_tokens=max_tokens))


def fitting(overflow: Overflow | None, prompt: str = "What is it?", before: Misfit | None = None) -> float:
    """The share of the pixels that is tried next."""
    return fitting_pixels(Misfit(pixels=PIXELS, overflow=overflow), request(prompt), before) / PIXELS


@pytest.mark.parametrize("text", [20, 60, 300])
@pytest.mark.parametrize(("read", "context"), [(419, 300), (1044, 1024), (5000, 4096), (20010, 2048)])
def test_the_next_picture_fits_if_the_numbers_are_known(read: int, context: int, text: int) -> None:
    """With a picture of the computed size, prompt and picture fit, with room for an answer."""
    text = min(text, context // 4)
    prompt = "word " * (text - 20)
    share = fitting(Overflow(input_tokens=read, context=context), prompt)
    tokens = text + share * (read - text)
    assert context / 3 < tokens <= context - min(512, context // 4)


def test_the_room_for_the_answer_is_what_the_server_keeps() -> None:
    """If the server says how much room it keeps for the answer, the input fits into the rest."""
    share = fitting(Overflow(input_tokens=8000, context=8192, output_tokens=512))
    assert 0.9 < share * 8000 / (8192 - 512) <= 1
    share = fitting(Overflow(input_tokens=4641, context=3721, output_tokens=0))
    assert 0.9 < share * 4641 / 3721 <= 1


@pytest.mark.parametrize(
    "overflow",
    [
        None,
        Overflow(input_tokens=100, context=90),  # less than the prompt alone
        Overflow(input_tokens=9000, context=8192, output_tokens=8192),
        Overflow(input_tokens=100, context=8192),  # it would fit
        Overflow(input_tokens=0, context=2048, output_tokens=512),
    ],
)
def test_half_the_sides_are_tried_without_useful_numbers(overflow: Overflow | None) -> None:
    """Without numbers, or if they make no sense, the next picture has half the sides."""
    prompt = "word " * 100
    assert fitting(overflow, prompt) == pytest.approx(1 / 4, abs=1e-5)


def test_a_lower_bound_shrinks_by_half_at_least() -> None:
    """If the server stopped counting, its number only says that the picture is too large."""
    assert fitting(Overflow(input_tokens=2049, context=2048, at_least=True)) == 1 / 4


def test_two_refusals_give_the_tokens_of_the_prompt() -> None:
    """From two sizes the tokens of the prompt are known: the third picture fits in any script."""
    text, rate, context = 700, 1000 / PIXELS, 1200  # the prompt is far longer in tokens than its bytes say
    first = Misfit(pixels=2 * PIXELS, overflow=Overflow(input_tokens=text + 2000, context=context))
    share = fitting(Overflow(input_tokens=text + 1000, context=context), before=first)
    assert 100 < share * PIXELS * rate <= context - text - context // 4


def test_a_second_refusal_shrinks_by_a_quarter_at_least() -> None:
    """After a second refusal the picture shrinks by a quarter or more, whatever the estimate is."""
    overflow = Overflow(input_tokens=1030, context=1024, output_tokens=0)
    assert fitting(overflow, before=Misfit(pixels=PIXELS)) <= 3 / 4


def test_no_picture_is_shrunk_to_nothing() -> None:
    """A picture keeps 32x32 pixels."""
    tiny = Misfit(pixels=LEAST_PIXELS)
    assert fitting_pixels(tiny, request()) == LEAST_PIXELS
    two = replace(request(), images=(PICTURE, PICTURE))
    assert fitting_pixels(tiny, two) == 2 * LEAST_PIXELS


def test_only_a_reduced_picture_is_marked() -> None:
    """A picture that is smaller than the options say is marked and has a warning."""
    assert marked(PICTURE, Sizing(longest=1024)) == PICTURE
    reduced = marked(PICTURE, Sizing(longest=2048))
    assert (reduced.is_reduced, reduced.warnings) == (True, (REDUCED,))
