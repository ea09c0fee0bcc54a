"""Runs at an endpoint whose context is too small for picture, prompt and answer."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Received
from loop_clock import skipping
from PIL import Image
from running import Ran, ran

from vlmbatch.backends.http import hints
from vlmbatch.events import Notice

Photos = Callable[..., Path]
LONG_ANSWER = " ".join(f"word{n}" for n in range(200))
both = pytest.mark.parametrize("backend", ["ollama", "vllm"])


@pytest.fixture
def small(endpoint: Endpoint) -> Endpoint:
    """An endpoint that counts a token for each 28x28 pixels and for each word of prompt and answer."""
    endpoint.counts = "patches"
    endpoint.answer = lambda request: LONG_ANSWER
    return endpoint


def asked(endpoint: Endpoint, backend: str, **options: Any) -> dict[str, Any]:
    return {"backend": backend, "base_url": endpoint.url, "model": "tiny-vision", "concurrency": 1, **options}


@both
async def test_an_answer_that_the_context_cuts_is_requested_with_a_smaller_picture(
    photos: Photos, small: Endpoint, backend: str
) -> None:
    """An answer that the context cuts is complete with a smaller picture, and the record has a warning."""
    photos(1, (448, 448))
    small.context = 400
    [result] = (await ran(**asked(small, backend))).results
    assert result.completion is not None
    assert result.completion.text == LONG_ANSWER
    assert result.attempts == 2
    assert result.image.sent_width == small.questions[-1].pictures[0].width < 448
    assert "retried with a smaller picture: truncated" in result.warnings


@both
async def test_a_failure_names_the_context_and_keeps_the_text(
    photos: Photos, small: Endpoint, backend: str
) -> None:
    """If even a small picture leaves no room for the answer, the failure has the numbers and the text."""
    photos(1, (448, 448))
    small.context = 150
    [result] = (await ran(**asked(small, backend, max_size=224))).results
    assert result.failure is not None
    assert result.failure.kind == "truncated"
    assert "the context of 150 tokens is full" in result.failure.message
    assert "larger --max-tokens" not in result.failure.message
    assert (result.failure.partial or "").startswith("word0 word1")
    assert LONG_ANSWER.startswith(result.failure.partial or "?")


@both
async def test_a_cut_by_the_context_is_accepted_with_its_cause(
    photos: Photos, small: Endpoint, backend: str
) -> None:
    """With --accept length the cut answer is stored after one request, and its warning names the context."""
    photos(1, (448, 448))
    small.context = 400
    [result] = (await ran(**asked(small, backend, accept="length"))).results
    assert result.ok
    assert len(small.questions) == 1
    assert any("although the context of 400 tokens cut it" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("ps", "options", "told"),
    [
        ("404-route", {}, "the endpoint cut the answer after"),
        ("broken_json", {}, "the endpoint cut the answer after"),
        ("404-route", {"num_ctx": 150}, "the context of 150 tokens is full"),
        ("404-route", {"option": "num_ctx=150"}, "the context of 150 tokens is full"),
    ],
)
async def test_an_ollama_that_does_not_report_its_context(
    photos: Photos, small: Endpoint, ps: str, options: dict[str, Any], told: str
) -> None:
    """Without --num-ctx and without /api/ps, the message says that the endpoint cut the answer."""
    photos(1, (448, 448))
    small.context, small.routes["/api/ps"] = 150, ps
    [result] = (await ran(**asked(small, "ollama", max_size=224, **options))).results
    assert result.failure is not None
    assert told in result.failure.message
    assert "larger --max-tokens" not in result.failure.message


async def test_an_ollama_that_never_reports_its_context_is_asked_once(
    photos: Photos, small: Endpoint
) -> None:
    """If /api/ps hangs, only the first cut answer waits for it, and not every cut answer of the run."""
    photos(3, (448, 448))
    small.context, small.routes["/api/ps"] = 150, "hang"
    with skipping(small, hints.HINT_S):
        done = await ran(**asked(small, "ollama", max_size=224))
    assert [result.failure.kind for result in done.results if result.failure] == ["truncated"] * 3
    assert [request.path for request in small.requests].count("/api/ps") == 1


def notices(done: Ran) -> list[str]:
    return [event.message for event in done.events if isinstance(event, Notice)]


@both
async def test_only_the_first_picture_is_refused(photos: Photos, endpoint: Endpoint, backend: str) -> None:
    """The first refusal gives the size of all later pictures; records, notice and summary report it."""
    photos(6, (1024, 768))
    endpoint.counts, endpoint.context = "patches", 300
    done = await ran(**asked(endpoint, backend))
    assert done.summary is not None
    assert (done.summary.succeeded, done.summary.reduced) == (6, 6)
    assert len(endpoint.questions) == 7
    sizes = {(q.pictures[0].width, q.pictures[0].height) for q in endpoint.questions[1:]}
    assert len(sizes) == 1
    ((width, height),) = sizes
    assert 400 < width < 1024
    assert all((r.image.sent_width, r.image.sent_height) == (width, height) for r in done.results)
    assert all(any("larger picture does not fit" in w for w in r.warnings) for r in done.results)
    assert all(r.image.width == 1024 for r in done.results)
    (told,) = [message for message in notices(done) if "do not fit into the context" in message]
    assert "pictures of 1024x768 pixels" in told
    assert {"ollama": "--num-ctx", "vllm": "--max-model-len"}[backend] in told


async def test_pictures_that_were_prepared_before_the_limit_was_known_are_not_refused(
    photos: Photos, endpoint: Endpoint
) -> None:
    """Only pictures in flight with the first one are refused, not those that were already prepared."""
    photos(30, (1024, 768))
    endpoint.counts, endpoint.context = "patches", 300
    done = await ran(**asked(endpoint, "vllm", concurrency=2))
    assert done.summary is not None
    assert (done.summary.succeeded, done.summary.reduced) == (30, 30)
    assert len(endpoint.questions) <= 30 + 2 * 2


async def test_small_pictures_stay_as_they_are(photos: Photos, endpoint: Endpoint) -> None:
    """A picture within the limit of the endpoint is sent unchanged and has no warning."""
    folder = photos(1, (1024, 768))
    (folder / "p0000.jpg").rename(folder / "a.jpg")
    photos(1, (280, 280))
    endpoint.counts, endpoint.context = "patches", 300
    done = await ran(**asked(endpoint, "vllm"))
    assert done.summary is not None
    assert (done.summary.succeeded, done.summary.reduced) == (2, 1)
    (unchanged,) = [result for result in done.results if result.id == "photos/p0000.jpg"]
    assert (unchanged.image.sent_width, unchanged.warnings) == (280, ())


@pytest.mark.usefixtures("all_from_the_start")
async def test_each_endpoint_has_a_limit_of_its_own(photos: Photos, endpoint: Endpoint) -> None:
    """An endpoint with a larger context gets the pictures in full size."""
    photos(12, (1024, 768))
    endpoint.counts, endpoint.context = "patches", 300
    with Endpoint() as large:
        for each in (endpoint, large):
            each.hold_until(lambda: endpoint.questions and large.questions)
        urls = (endpoint.url, large.url)
        done = await ran(**{**asked(endpoint, "vllm"), "base_url": urls, "concurrency": 2})
        assert done.summary is not None
        assert done.summary.succeeded == 12
        assert {q.pictures[0].width for q in large.questions} >= {1024}
        refused = [q for q in endpoint.questions if q.pictures[0].width == 1024]
        assert len(refused) <= 2


def is_black(request: Received) -> bool:
    """Whether the picture is that of p0000.jpg."""
    with Image.open(io.BytesIO(request.pictures[0].data)) as picture:
        return max(picture.convert("RGB").resize((1, 1)).tobytes()) < 5


@pytest.mark.usefixtures("all_from_the_start")
async def test_a_limit_is_kept_if_another_endpoint_answers(photos: Photos, endpoint: Endpoint) -> None:
    """A picture that one endpoint refuses goes to the other one; the next ones fit at the first endpoint."""
    photos(30, (1024, 768))
    endpoint.counts, endpoint.context = "patches", 300
    with Endpoint() as large:
        urls = (endpoint.url, large.url)
        done = await ran(**{**asked(endpoint, "vllm"), "base_url": urls})
        assert done.summary is not None
        assert done.summary.succeeded == 30
    assert len([q for q in endpoint.questions if q.pictures[0].width == 1024]) == 1
    assert len(endpoint.questions) > 1


async def test_a_picture_that_never_fits_limits_no_other_one(photos: Photos, endpoint: Endpoint) -> None:
    """If an image fails in every size, the images after it are sent in full size."""
    photos(40, (1024, 768))
    endpoint.script = lambda request: "context" if is_black(request) else "ok"
    done = await ran(**asked(endpoint, "vllm"))
    assert [(r.id, r.failure.kind) for r in done.results if r.failure] == [("photos/p0000.jpg", "context")]
    assert endpoint.questions[-1].pictures[0].width == 1024
    assert not any("do not fit" in message for message in notices(done))


async def test_a_picture_that_has_too_many_bytes_limits_no_other_one(
    photos: Photos, endpoint: Endpoint
) -> None:
    """A 413 depends on the content of a picture: the other ones are sent in full size."""
    photos(4, (1024, 768))
    endpoint.script = lambda request: "413" if is_black(request) and request.pictures[0].width > 600 else "ok"
    done = await ran(**asked(endpoint, "vllm"))
    assert sorted(q.pictures[0].width for q in endpoint.questions) == [512, 1024, 1024, 1024, 1024]
    assert all(result.ok for result in done.results)


async def test_the_next_pictures_leave_room_for_the_answer(photos: Photos, small: Endpoint) -> None:
    """After an answer that the context cut, the next pictures are small enough from the start."""
    photos(4, (448, 448))
    small.context = 400
    done = await ran(**asked(small, "vllm"))
    assert done.summary is not None
    assert (done.summary.succeeded, done.summary.reduced) == (4, 4)
    assert len(small.questions) == 5
