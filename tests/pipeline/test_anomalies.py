"""What results tell together: refusals that are all alike, answers that are all the same, reloads."""

from dataclasses import replace
from typing import Any

import pytest
from written_results import answered
from written_results import failed as failed_before

from vlmbatch.errors import FailureKind, FatalBackendError, UnavailableError
from vlmbatch.images import ImageFacts
from vlmbatch.pipeline.anomalies import MOST_HELD, RELOADS, SAME_ANSWERS, SAME_FAILURES, SystemicFailures
from vlmbatch.records import Completion, Failure, Result


def failed(number: int, kind: FailureKind = "rejected", message: str = "HTTP 422: bad field") -> Result:
    """The failure of one of many images."""
    return replace(failed_before(f"{number}.jpg"), failure=Failure(kind=kind, message=message))


def verdicts(told: list[str] | None = None, before: bool = False) -> SystemicFailures:
    return SystemicFailures((told if told is not None else []).append, lambda: before)


def passed(looking: SystemicFailures, results: list[Result]) -> list[Result]:
    """All that may be written after these results."""
    return [result for given in results for result in looking.look_at(given)]


def test_ten_refusals_alike_are_the_set_up() -> None:
    """Ten images refused with the same words and no answer: exit 2 with those words, and no record."""
    looking = verdicts()
    assert passed(looking, [failed(n) for n in range(SAME_FAILURES - 1)]) == []
    with pytest.raises(FatalBackendError, match=r"first 10 images alike.*HTTP 422: bad field"):
        looking.look_at(failed(99))
    assert [*looking.look_at(failed(100)), *looking.rest()] == []


def test_ten_failures_alike_in_passing_are_the_endpoint() -> None:
    """A server that fails over everything is unavailable, which is safe to run again."""
    looking = verdicts()
    passed(looking, [failed(n, "server_error") for n in range(SAME_FAILURES - 1)])
    with pytest.raises(UnavailableError, match="it is the endpoint"):
        looking.look_at(failed(99, "server_error"))


def test_numbers_in_the_words_make_no_difference() -> None:
    """Sizes and counts differ from image to image; the cause does not."""
    looking = verdicts()
    with pytest.raises(FatalBackendError):
        passed(looking, [failed(n, message=f"size {n}x{n + 7} refused") for n in range(SAME_FAILURES)])


def test_copies_of_one_picture_are_one_witness() -> None:
    """However often the same content is refused, it tells nothing of others, and is written at last."""
    looking = verdicts()
    alike = [replace(failed(n), image=ImageFacts(sha256="ab" * 32)) for n in range(MOST_HELD)]
    assert passed(looking, alike[:-1]) == []
    assert passed(looking, alike[-1:]) == alike


def test_an_answer_before_them_makes_refusals_the_images_own() -> None:
    """Once the endpoint has answered, each refusal is written at once, however many follow."""
    looking = verdicts()
    results = [answered("good.jpg"), *(failed(n) for n in range(30))]
    assert passed(looking, results) == results


def test_an_answer_after_nine_refusals_sets_them_free() -> None:
    """What was held back is written before the answer, in its order, and nothing is lost."""
    looking = verdicts()
    results = [*(failed(n) for n in range(9)), answered("good.jpg"), *(failed(n) for n in range(20, 40))]
    assert passed(looking, results) == results


def test_other_words_set_them_free() -> None:
    """Failures that differ are the images' own."""
    looking = verdicts()
    results = [failed(n, message="abcdefgh"[n % 8]) for n in range(40)]
    assert [*passed(looking, results), *looking.rest()] == results


def test_answers_of_an_earlier_run_count() -> None:
    """A command that asks again about what is left of a finished folder is not a wrong set-up."""
    looking = verdicts(before=True)
    results = [failed(n) for n in range(25)]
    assert [*passed(looking, results), *looking.rest()] == results


@pytest.mark.parametrize("kind", ["bad_image", "refused", "vanished", "too_large"])
def test_what_is_about_a_picture_never_ends_the_run(kind: FailureKind) -> None:
    """A folder of broken files, or of pictures that a filter refuses, is written as it comes."""
    results = [failed(n, kind) for n in range(30)]
    assert passed(verdicts(), results) == results


def test_few_refusals_are_written_at_the_end() -> None:
    """Fewer than ten images in all: they are held back only until the end."""
    looking = verdicts()
    results = [failed(n) for n in range(3)]
    assert passed(looking, results) == []
    assert looking.rest() == results


def answer(number: int, text: str, **completion: Any) -> Result:
    done = Completion(text=text, model="m", finish_reason="stop", **completion)
    return replace(answered(f"{number}.jpg"), completion=done)


def test_the_same_answer_to_many_images_only_warns() -> None:
    """Twenty equal answers are told of once, and all are written: yes is an honest answer."""
    told: list[str] = []
    results = [answer(n, "Yes" if n % 2 else "Yes ") for n in range(60)]
    assert passed(verdicts(told), results) == results
    assert len(told) == 1
    assert "(Yes)" in told[0]


def test_answers_that_differ_now_and_then_are_no_news() -> None:
    """One other answer among them shows that the model looks."""
    told: list[str] = []
    passed(verdicts(told), [answer(n, "no" if n % (SAME_ANSWERS - 1) else "yes") for n in range(100)])
    assert told == []


def test_a_model_that_is_loaded_again_and_again_is_told_of_once() -> None:
    """Three reloads in a run: another program uses the model, or keep_alive is too short."""
    told: list[str] = []
    reloads = [answer(n, str(n), load_s=8.2 if n % 2 else 0.0) for n in range(2 * RELOADS)]
    passed(verdicts(told), reloads[:-1])
    assert told == []
    passed(looking := verdicts(told), reloads)
    passed(looking, reloads)
    assert len(told) == 1
    assert "--keep-alive" in told[0]
