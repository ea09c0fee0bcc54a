"""Anomalies of many results: failures that are all alike, answers that are all the same, reloads."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from written_results import answered
from written_results import failed as failed_before

from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.errors import FailureKind, FatalBackendError, UnavailableError
from vlmbatch.events import ignore
from vlmbatch.images import ImageFacts
from vlmbatch.pipeline.anomalies import (
    BLIND_ANSWERS,
    MOST_HELD,
    RELOADS,
    SAME_ANSWERS,
    SAME_FAILURES,
    SystemicFailures,
)
from vlmbatch.records import Completion, Endpoint, Failure, Result


def failed(number: int, kind: FailureKind = "rejected", message: str = "HTTP 422: bad field") -> Result:
    """The failure of one of many images, by its number."""
    return replace(failed_before(f"{number}.jpg"), failure=Failure(kind=kind, message=message))


def systemic(told: list[str] | None = None, before: bool = False) -> SystemicFailures:
    return SystemicFailures((told if told is not None else []).append, lambda: before, Bugs(ignore))


def passed(anomalies: SystemicFailures, results: list[Result]) -> list[Result]:
    """All results that may be written after these ones."""
    return [result for given in results for result in anomalies.look_at(given)]


def test_ten_equal_refusals_are_a_wrong_set_up() -> None:
    """Ten images refused with the same words, and no answer, raise a fatal error and release no result."""
    anomalies = systemic()
    assert passed(anomalies, [failed(n) for n in range(SAME_FAILURES - 1)]) == []
    with pytest.raises(
        FatalBackendError, match=r"first 10 images with the same message.*HTTP 422: bad field"
    ):
        anomalies.look_at(failed(99))
    assert [*anomalies.look_at(failed(100)), *anomalies.rest()] == []


def test_ten_equal_transient_failures_are_the_endpoint() -> None:
    """Ten equal server errors and no answer are an unavailable endpoint, so that a later run is safe."""
    anomalies = systemic()
    passed(anomalies, [failed(n, "server_error") for n in range(SAME_FAILURES - 1)])
    with pytest.raises(UnavailableError, match="the cause is the endpoint"):
        anomalies.look_at(failed(99, "server_error"))


def test_numbers_in_the_message_make_no_difference() -> None:
    """Messages that differ only in their numbers count as the same failure."""
    anomalies = systemic()
    with pytest.raises(FatalBackendError):
        passed(anomalies, [failed(n, message=f"size {n}x{n + 7} refused") for n in range(SAME_FAILURES)])


def test_copies_of_one_image_count_once() -> None:
    """Repeated refusals of the same content never end the run, and are written in the end."""
    anomalies = systemic()
    alike = [replace(failed(n), image=ImageFacts(sha256="ab" * 32)) for n in range(MOST_HELD)]
    assert passed(anomalies, alike[:-1]) == []
    assert passed(anomalies, alike[-1:]) == alike


def test_after_an_answer_refusals_are_written_at_once() -> None:
    """Once the endpoint has answered, each refusal is written at once, even if thirty follow."""
    anomalies = systemic()
    results = [answered("good.jpg"), *(failed(n) for n in range(30))]
    assert passed(anomalies, results) == results


def test_an_answer_releases_nine_held_refusals() -> None:
    """Refusals that were held back are written in their order before the answer, and none is lost."""
    anomalies = systemic()
    results = [*(failed(n) for n in range(9)), answered("good.jpg"), *(failed(n) for n in range(20, 40))]
    assert passed(anomalies, results) == results


def test_different_failures_do_not_end_the_run() -> None:
    """Failures with different messages are all written."""
    anomalies = systemic()
    results = [failed(n, message="abcdefgh"[n % 8]) for n in range(40)]
    assert [*passed(anomalies, results), *anomalies.rest()] == results


def test_answers_of_an_earlier_run_count() -> None:
    """If an earlier run has answers, equal refusals of the remaining images do not end the run."""
    anomalies = systemic(before=True)
    results = [failed(n) for n in range(25)]
    assert [*passed(anomalies, results), *anomalies.rest()] == results


@pytest.mark.parametrize("kind", ["bad_image", "refused", "vanished", "too_large"])
def test_failures_of_the_image_itself_never_end_the_run(kind: FailureKind) -> None:
    """Failures of broken files, or of pictures that a filter refuses, are written at once, even if equal."""
    results = [failed(n, kind) for n in range(30)]
    assert passed(systemic(), results) == results


def test_few_refusals_are_written_at_the_end() -> None:
    """If a run has fewer than ten equal refusals, they are written at its end."""
    anomalies = systemic()
    results = [failed(n) for n in range(3)]
    assert passed(anomalies, results) == []
    assert anomalies.rest() == results


def answer(number: int, text: str, **completion: Any) -> Result:
    done = Completion(text=text, model="m", finish_reason="stop", **completion)
    return replace(answered(f"{number}.jpg"), completion=done)


def test_the_same_answer_to_many_images_only_warns() -> None:
    """Twenty equal answers cause one notice in a run, and all are written: they may be right."""
    told: list[str] = []
    results = [answer(n, ("Yes", "Yes ", "No")[(n % 2) if n % 30 else 2]) for n in range(1, 91)]
    assert passed(systemic(told), results) == results
    assert len(told) == 1
    assert "(Yes)" in told[0]


def test_one_different_answer_prevents_the_notice() -> None:
    """One different answer before every twentieth prevents the notice of equal answers."""
    told: list[str] = []
    passed(systemic(told), [answer(n, "no" if n % (SAME_ANSWERS - 1) else "yes") for n in range(100)])
    assert told == []


def test_repeated_loads_of_the_model_cause_one_notice() -> None:
    """The third reload in a run causes one notice, which names --keep-alive."""
    told: list[str] = []
    reloads = [answer(n, str(n), load_s=8.2 if n % 2 else 0.0) for n in range(2 * RELOADS)]
    passed(systemic(told), reloads[:-1])
    assert told == []
    passed(anomalies := systemic(told), reloads)
    passed(anomalies, reloads)
    assert len(told) == 1
    assert "--keep-alive" in told[0]


BLIND = "I'm sorry, but I cannot see any image."


@pytest.mark.parametrize(
    "texts",
    [
        [BLIND],
        ["A cat.", BLIND, "A dog.", "I'm unable to view images.", BLIND],
        [*(f"Photo {n}." for n in range(40)), *(f"{BLIND} ({n})" for n in range(BLIND_ANSWERS))],
    ],
    ids=["the only answer", "half of the first answers", "ten of many"],
)
def test_answers_of_a_blind_model_warn_once(texts: list[str]) -> None:
    """Answers that say that the model sees no image cause one notice with a hint, and all are written."""
    told: list[str] = []
    results = [answer(n, text) for n, text in enumerate([*texts, BLIND, BLIND])]
    assert passed(systemic(told), results) == results
    (notice,) = told
    for words in ("cannot see", "vlmbatch doctor", "--model"):
        assert words in notice


def test_few_such_answers_among_many_do_not_warn() -> None:
    """Up to nine such answers among many others cause no notice: the text may be read from the pictures."""
    told: list[str] = []
    texts = [f"Photo {n}." for n in range(20)] + [BLIND] * (BLIND_ANSWERS - 1)
    passed(systemic(told), [answer(n, text) for n, text in enumerate(texts)])
    assert told == []


def test_answers_about_blindness_do_not_warn() -> None:
    """Answers about blind people and about signs without an image cause no notice."""
    told: list[str] = []
    texts = ["A blind man who cannot see the image.", 'A sign: "no image available".', "No image available"]
    passed(systemic(told), [answer(n, text) for n, text in enumerate(texts)])
    assert told == []


def test_known_answers_of_a_blind_model_do_not_warn() -> None:
    """Answers that are reused from an earlier run cause no notice."""
    told: list[str] = []
    passed(systemic(told), [replace(answer(1, BLIND), cached=True)])
    assert told == []


def served(clients: int, slots: int, way_s: float, work_s: float, seed: int, url: str = "u") -> list[Result]:
    """A hundred answers of an Ollama with these slots, in their order.

    Each request takes `way_s` on the way and `work_s` in a slot, both more or less.
    """
    dice, free, ready = random.Random(seed), [0.0] * slots, [0.0] * clients
    began = datetime(2026, 1, 1, tzinfo=UTC)
    results = []
    for number in range(100):
        client = ready.index(min(ready))
        start, slot = ready[client], free.index(min(free))
        took_s = work_s * dice.uniform(0.7, 1.3)
        end = max(start + way_s * dice.uniform(0.7, 1.3), free[slot]) + took_s
        free[slot] = ready[client] = end
        result = replace(
            answer(number, str(number), busy_s=took_s),
            endpoint=Endpoint(backend="ollama", url=url, model="m"),
            started_at=began + timedelta(seconds=start),
            duration_s=end - start,
        )
        results.append(result)
    return sorted(results, key=lambda each: each.started_at + timedelta(seconds=each.duration_s))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("clients", "slots", "way_s", "work_s", "notices"),
    [
        (4, 1, 0.0, 0.1, 1),
        (8, 1, 0.05, 0.1, 1),
        (8, 4, 0.0, 0.1, 0),
        (8, 4, 0.3, 0.05, 0),
        (4, 4, 0.2, 0.05, 0),
        (8, 4, 1.0, 0.1, 0),
        (1, 1, 0.0, 0.1, 0),
    ],
)
def test_a_server_with_one_slot_is_not_mistaken_for_one_with_four(
    clients: int, slots: int, way_s: float, work_s: float, notices: int, seed: int
) -> None:
    """Only a server whose requests wait for one slot counts as serial, however long they are on the way."""
    told: list[str] = []
    passed(systemic(told), served(clients, slots, way_s, work_s, seed))
    assert sum("OLLAMA_NUM_PARALLEL" in text for text in told) == notices


def test_two_servers_with_one_slot_are_judged_separately() -> None:
    """The answers of two serial servers do not make them look like one with two slots."""
    told: list[str] = []
    both = [*served(4, 1, 0.0, 0.1, 1), *served(4, 1, 0.0, 0.1, 2, url="v")]
    passed(systemic(told), sorted(both, key=lambda each: each.started_at))
    assert sum("OLLAMA_NUM_PARALLEL" in text for text in told) == 1
