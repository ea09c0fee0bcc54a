"""Refusals: whether one picture, an option of the user or the whole endpoint is the reason."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, question
from command import records
from endpoint import Endpoint, Received
from endpoint.messages import Reply
from endpoint.model import colour
from endpoint.modes import html
from endpoint.wires import as_json, error
from running import Ran, ran

from vlmbatch.backends.confirm import ANY_FLAW, MAX_TOKENS
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.refusal_check import MANY_IN_A_ROW, MOST_PROOFS, RefusalCheck
from vlmbatch.errors import BadAnswerError, FatalBackendError, RejectedError, UnavailableError
from vlmbatch.events import EndpointPaused, EndpointResumed, Notice, ignore
from vlmbatch.records import Failure

Photos = Callable[..., Path]
FIREWALL = html(403, "Attention Required! | Cloudflare")
CLIENT_REFUSED: dict[str, Reply] = {
    "401": as_json(401, {"error": {"message": "Invalid API Key", "type": "authentication_error"}}),
    "403": FIREWALL,
    "404": as_json(404, {"detail": "Not Found"}),
    "404-model": as_json(404, {"error": {"message": "The model `tiny-vision` does not exist."}}),
}
UNKNOWN_WORDS: dict[str, Reply] = {
    "400-page": html(400, "400 Bad Request"),
    "400-unloaded": as_json(400, {"error": "Model unloaded."}),
    "410": html(410, "Gone"),
    "501": as_json(501, {"error": {"message": "no such backend"}}),
}
OPTIONS: list[tuple[str, dict[str, object], str, int, str]] = [
    ("vllm", {"logprobs": 20}, "--logprobs 20", 400, "Requested sample logprobs of 20 exceeds: 5"),
    ("vllm", {"logprobs": 20}, "--logprobs 20", 422, "top_logprobs must be between 0 and 5"),
    ("vllm", {"logprobs": 3}, "--logprobs 3", 500, "logprobs are not supported with this model"),
    ("vllm", {"logprobs": 3}, "--logprobs 3", 409, "logprobs conflict with another option of the server"),
    ("vllm", {"logprobs": 3}, "--logprobs 3", 501, "logprobs are not implemented"),
    ("vllm", {"logprobs": 3}, "--logprobs 3", 403, "You are not allowed to request logprobs from this model"),
    ("vllm", {"logprobs": 3}, "--logprobs 3", 404, "no provider that supports logprobs was found"),
    ("vllm", {"logprobs": 3}, "--logprobs 3", 200, "logprobs are not enabled"),
    ("vllm", {"temperature": 1.9}, "--temperature 1.9", 400, "temperature must be in [0, 1]"),
    ("vllm", {"seed": 7}, "--seed 7", 422, "Extra inputs are not permitted: seed"),
    ("vllm", {"max_tokens": 8}, "--max-tokens 8", 400, "max_tokens must be at least 32"),
    ("vllm", {"system": "You are terse."}, "--system", 400, "System role not supported"),
    ("vllm", {"system": "Be terse."}, "--system", 400, "Conversation roles must alternate user/..."),
    ("vllm", {"system": "Be terse."}, "--system", 400, "Developer instruction is not enabled here"),
    ("vllm", {"schema": '{"type": "object"}'}, "--schema", 400, "json_schema is not available here"),
    ("vllm", {"extra_body": '{"top_k": 5}'}, "top_k of --extra-body", 400, "Unknown parameter: top_k"),
    ("vllm", {"mm_processor_kwargs": '{"crop": 1}'}, "--mm-processor-kwargs", 400, "crop is no argument"),
    ("ollama", {"keep_alive": "24h"}, "--keep-alive 24h", 400, "keep_alive is longer than allowed"),
    ("ollama", {"option": ("num_gpu=99",)}, "--option num_gpu=99", 500, "num_gpu must not be above 4"),
    ("ollama", {"num_ctx": 999}, "--num-ctx 999", 400, "num_ctx is odd"),
]


@pytest.fixture
def asked(endpoint: Endpoint) -> dict[str, Any]:
    """The options of a run at the endpoint, over OpenAI's API."""
    return {"backend": "vllm", "base_url": endpoint.url, "model": "tiny-vision"}


def first_picture(seen: list[str]) -> Callable[[Received], bool]:
    """Whether a request is about the picture that came first of all."""

    def is_first(request: Received) -> bool:
        if request.is_canary or not request.pictures:
            return False
        seen.append(request.pictures[0].sha256)
        return request.pictures[0].sha256 == seen[0]

    return is_first


def failures(done: Ran) -> list[Failure]:
    return [result.failure for result in done.results if result.failure]


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize(("backend", "options", "shown", "status", "words"), OPTIONS)
async def test_a_refused_option_ends_the_run(
    photos: Photos,
    endpoint: Endpoint,
    backend: str,
    options: dict[str, object],
    shown: str,
    status: int,
    words: str,
    images: int,
) -> None:
    """An option that is refused with any picture ends the run with exit code 2, and nothing is recorded."""
    photos(images)
    wire = "ollama" if backend == "ollama" else "openai"
    endpoint.refusal = lambda request: None if request.is_canary else error(wire, status, words)
    done = await ran(backend=backend, base_url=endpoint.url, model="tiny-vision", output="o.jsonl", **options)
    assert isinstance(done.error, FatalBackendError)
    assert str(done.error).startswith(f"the endpoint does not accept {shown}: {words}")
    assert "leave it out" in str(done.error)
    assert done.results == []
    assert not Path("o.jsonl").exists()
    assert len(endpoint.questions) <= 2 * images + 1


async def test_a_schema_that_ollama_cannot_use(photos: Photos, endpoint: Endpoint) -> None:
    """Ollama's error about its vocabulary ends the run, and names no image."""
    photos(1)
    refused = error("ollama", 500, "failed to load model vocabulary required for format")
    endpoint.refusal = lambda request: refused if "format" in request.body else None
    options = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision"}
    done = await ran(**options, schema='{"type": "object"}')
    assert isinstance(done.error, FatalBackendError)
    assert done.results == []


OF_IMAGES: dict[str, tuple[dict[str, object], Callable[[Received], bool]]] = {
    "logprobs": ({"logprobs": 5}, lambda request: "logprobs" in request.body),
    "schema": ({"schema": '{"type": "object"}'}, lambda request: "response_format" in request.body),
    "system": ({"system": "Be terse."}, lambda request: request.body["messages"][0]["role"] == "system"),
}


@pytest.mark.parametrize("canary", [True, False])
@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("option", OF_IMAGES)
async def test_options_that_are_refused_without_their_names(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], option: str, status: int, canary: bool
) -> None:
    """A 403 or 404 for options that only the images have ends the run, and fails no image."""
    photos(3)
    given, has_option = OF_IMAGES[option]
    refused = error("openai", status, "No endpoints found that can handle the requested parameters.")
    endpoint.refusal = lambda request: refused if request.pictures and has_option(request) else None
    done = await ran(**asked, **given, canary=canary)
    assert isinstance(done.error, FatalBackendError)
    assert "the requested parameters" in str(done.error)
    assert done.results == []


CHECKS = {"503": (503, "server busy", True), "500": (500, "oops", True), "400": (400, "too plain", False)}


@pytest.mark.parametrize("name", CHECKS)
async def test_a_check_that_fails_for_a_reason_of_its_own(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str
) -> None:
    """A check that is busy or fails in passing is no proof; one refused in other words blames no option."""
    photos(1)
    status, words, is_answered = CHECKS[name]
    told = [error("openai", 400, "no logprobs here")]
    broken = [error("openai", status, words)]

    def refusal(request: Received) -> Reply | None:
        is_photo = bool(request.pictures) and request.pictures[0].width == 64
        left = told if is_photo else broken
        return left.pop() if left else None

    endpoint.refusal = refusal
    done = await ran(**asked, logprobs=2, canary=False)
    assert done.error is None
    assert [result.ok for result in done.results] == [is_answered]
    assert (told, broken) == ([], [])


async def test_a_refusal_of_every_picture_keeps_the_words_of_the_server(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A refusal that names no option of the user and holds for any picture ends the run in its own words."""
    photos(1)
    endpoint.refusal = lambda request: error("openai", 400, "tiny-vision is not a multimodal model")
    done = await ran(**asked, canary=False)
    assert isinstance(done.error, FatalBackendError)
    assert "tiny-vision is not a multimodal model" in str(done.error)
    assert "does not accept" not in str(done.error)


async def test_a_check_has_as_many_pictures(endpoint: Endpoint) -> None:
    """A refusal of two pictures is checked with two pictures, since the number may be the reason."""
    endpoint.refusal = lambda request: error("openai", 400, "no logprobs here")
    two = replace(question(), images=question().images * 2)
    async with KINDS["vllm"].open(endpoint.url) as backend:
        check = RefusalCheck(backend, RunConfig.of(".", logprobs=2), Bugs(ignore))
        with pytest.raises(FatalBackendError, match="--logprobs 2"):
            await check.complete(two)
    assert [len(each.pictures) for each in endpoint.requests if each.pictures] == [2, 2]


async def test_a_403_that_names_an_option_before_the_first_answer(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """Without a canary, too, the error names the option, and not the key."""
    photos(1)
    refused = error("openai", 403, "You are not allowed to request logprobs from this model")
    endpoint.refusal = lambda request: refused if "logprobs" in request.body else None
    done = await ran(**asked, logprobs=5, canary=False)
    assert str(done.error).startswith("the endpoint does not accept --logprobs 5: You are not allowed")


async def test_a_proxy_whose_words_contain_an_option(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """After an accepted image, a 403 that mentions an option pauses the run, which then goes on."""
    photos(6)
    busy = error("openai", 403, "contact your system administrator")
    seen: list[Received] = []

    def refusal(request: Received) -> Reply | None:
        seen.append(request)
        return busy if 6 <= len(seen) < 12 else None

    endpoint.refusal = refusal
    done = await ran(**asked, system="You are terse.", concurrency=1)
    assert done.error is None
    assert [result.ok for result in done.results] == [True] * 6


@pytest.mark.parametrize("canary", [True, False])
async def test_a_refused_option_in_a_resumed_run(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], canary: bool
) -> None:
    """A run that goes on after earlier answers ends for a refused option, too, with or without a canary."""
    photos(3)
    assert (await ran(**asked, limit=1, output="o.jsonl")).error is None
    endpoint.refusal = lambda request: (
        error("openai", 400, "max logprobs is 5") if "logprobs" in request.body else None
    )
    done = await ran(**asked, output="o.jsonl", logprobs=20, append=True, canary=canary)
    assert isinstance(done.error, FatalBackendError)
    assert [record["status"] for record in records(Path("o.jsonl").read_text())] == ["ok"]
    corrected = await ran(**asked, output="o.jsonl", logprobs=5, append=True)
    assert isinstance(corrected.error, FatalBackendError)
    endpoint.refusal = lambda request: None
    assert [r.ok for r in (await ran(**asked, output="o.jsonl", logprobs=5)).results] == [True] * 2


async def test_an_option_that_stops_the_warm_up(photos: Photos, endpoint: Endpoint) -> None:
    """If Ollama refuses an option when the model is loaded, the error names the option as it was typed."""
    photos(1)
    endpoint.routes = {"/api/chat": "bad_option"}
    done = await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", num_ctx=4096)
    assert isinstance(done.error, FatalBackendError)
    assert str(done.error).startswith("the endpoint does not accept --num-ctx 4096: option")


async def test_an_option_that_the_canary_has(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the canary is refused for an option, and a second picture, too, no image is sent."""
    photos(1)
    endpoint.refusal = lambda request: error("openai", 400, "temperature must be 1")
    done = await ran(**asked, temperature=0.7)
    assert isinstance(done.error, FatalBackendError)
    assert "--temperature 0.7" in str(done.error)
    assert endpoint.questions == []


async def test_a_picture_whose_refusal_names_an_option(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If another picture is accepted with the option, the image has failed, and the next run retries it."""
    photos(6)
    is_first = first_picture([])
    words = "no logprobs for this picture"
    endpoint.refusal = lambda request: error("openai", 400, words) if is_first(request) else None
    done = await ran(**asked, logprobs=2, concurrency=1, output="o.jsonl")
    assert done.error is None
    assert [(f.kind, f.retryable, words in f.message) for f in failures(done)] == [("rejected", True, True)]
    assert len(endpoint.questions) == 7
    endpoint.refusal = lambda request: None
    assert [r.ok for r in (await ran(**asked, logprobs=2, output="o.jsonl")).results] == [True]


async def test_a_few_proofs_are_enough(photos: Photos, endpoint: Endpoint, asked: dict[str, Any]) -> None:
    """After a refused option was accepted with three other pictures, no other picture is sent for it."""
    photos(8)
    sizes = {(64, 48)}
    endpoint.refusal = lambda request: (
        error("openai", 400, f"seed {request.chat} is odd")
        if request.pictures and (request.pictures[0].width, request.pictures[0].height) in sizes
        else None
    )
    endpoint.script = lambda request: "ok"
    done = await ran(**asked, seed=3, concurrency=1)
    assert [f.retryable for f in failures(done)] == [True] * 8
    assert len(endpoint.questions) == 8 + MOST_PROOFS


@pytest.mark.parametrize("canary", [True, False])
async def test_an_option_that_one_endpoint_refuses(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], canary: bool
) -> None:
    """An endpoint that refuses an option gets no more images, also before the others are proven."""
    photos(6)
    with Endpoint() as other:
        other.refusal = lambda request: error("openai", 400, "Unknown argument: top_k")
        endpoint.answer_canary = lambda request: other.until(lambda: other.canaries) or colour(request)
        if not canary:
            endpoint.answer = lambda request: other.until(lambda: other.questions) or "ok"
        asked["base_url"] = (endpoint.url, other.url)
        done = await ran(**asked, extra_body='{"top_k": 3}', canary=canary)
    assert done.error is None
    assert [r.ok for r in done.results] == [True] * 6
    assert {r.endpoint.url for r in done.results} == {f"{endpoint.url}/v1"}
    told = [event.message for event in done.of(Notice)]
    assert any(f"{other.url}/v1 gets no more images" in message for message in told)


async def test_an_option_that_all_endpoints_refuse(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If each of several endpoints refuses an option, the run ends with exit code 2."""
    photos(6)
    with Endpoint() as other:
        for each in (endpoint, other):
            each.refusal = lambda request: error("openai", 400, "Unknown argument: top_k")
        asked["base_url"] = (endpoint.url, other.url)
        done = await ran(**asked, extra_body='{"top_k": 3}')
    assert isinstance(done.error, FatalBackendError)
    assert done.results == []


@pytest.mark.parametrize("name", CLIENT_REFUSED)
async def test_a_firewall_refuses_one_picture(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str
) -> None:
    """A 401, 403 or 404 for one picture, although the endpoint answers others, fails that image alone."""
    photos(6)
    is_first = first_picture([])
    endpoint.refusal = lambda request: CLIENT_REFUSED[name] if is_first(request) else None
    done = await ran(**asked, concurrency=2, output="o.jsonl")
    assert done.error is None
    assert sum(r.ok for r in done.results) == 5
    [failure] = failures(done)
    assert (failure.kind, failure.retryable) == ("rejected", False)
    assert "accepts another one" in failure.message
    assert "--" not in failure.message
    assert done.of(EndpointPaused) == []
    checks = [each for each in endpoint.questions if each.pictures[0].width == 224]
    assert {each.body["max_tokens"] for each in checks} == {MAX_TOKENS}, "a check costs little"
    assert (await ran(**asked, output="o.jsonl")).results == []


@pytest.mark.parametrize("canary", [True, False])
@pytest.mark.parametrize("name", CLIENT_REFUSED)
async def test_refusals_of_every_request_for_a_while(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str, canary: bool
) -> None:
    """If an endpoint refuses every request for a while after answers, the run pauses and loses nothing."""
    photos(12)
    closed = [CLIENT_REFUSED[name]] * 9

    def refusal(request: Received) -> Reply | None:
        return closed.pop() if closed and len(endpoint.questions) > 4 else None

    endpoint.refusal = refusal
    done = await ran(**asked, concurrency=3, canary=canary)
    assert done.error is None
    assert [r.ok for r in done.results] == [True] * 12
    assert {r.attempts for r in done.results} == {1}
    assert len(done.of(EndpointPaused)) == len(done.of(EndpointResumed)) > 0


@pytest.mark.parametrize("name", CLIENT_REFUSED)
async def test_refusals_of_every_request_that_stay(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str
) -> None:
    """If an endpoint refuses every request for the whole patience after answers, the run ends with code 4."""
    photos(12)
    endpoint.refusal = lambda request: CLIENT_REFUSED[name] if len(endpoint.questions) > 4 else None
    done = await ran(**asked, concurrency=3, give_up_after=0.3)
    assert isinstance(done.error, UnavailableError)
    assert failures(done) == []


@pytest.mark.parametrize("canary", [True, False])
@pytest.mark.parametrize("name", CLIENT_REFUSED)
async def test_refusals_before_the_first_answer(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str, canary: bool
) -> None:
    """Before the first answer such a refusal is a wrong set-up: exit code 2. After a 403 an image decides."""
    photos(3)
    endpoint.refusal = lambda request: CLIENT_REFUSED[name]
    done = await ran(**asked, concurrency=1, canary=canary)
    assert isinstance(done.error, FatalBackendError)
    assert len(endpoint.questions) + len(endpoint.canaries) == (2 if canary and name == "403" else 1)


@pytest.mark.parametrize("name", UNKNOWN_WORDS)
async def test_one_picture_is_refused_in_unknown_words(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str
) -> None:
    """Such a refusal of one picture fails that image alone, after a question about another picture."""
    photos(6)
    is_first = first_picture([])
    endpoint.refusal = lambda request: UNKNOWN_WORDS[name] if is_first(request) else None
    done = await ran(**asked, concurrency=2)
    assert done.error is None
    assert sum(r.ok for r in done.results) == 5
    assert [(f.kind, "accepts another one" in f.message) for f in failures(done)] == [("rejected", True)]
    assert done.of(EndpointPaused) == []


@pytest.mark.parametrize("name", UNKNOWN_WORDS)
async def test_every_request_is_refused_in_unknown_words_for_a_while(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any], name: str
) -> None:
    """If the endpoint refuses the canary, too, which it has answered, the run pauses and loses nothing."""
    photos(12)
    closed = [UNKNOWN_WORDS[name]] * 9
    endpoint.refusal = lambda request: closed.pop() if closed and len(endpoint.questions) > 4 else None
    done = await ran(**asked, concurrency=3)
    assert done.error is None
    assert [r.ok for r in done.results] == [True] * 12
    assert {r.attempts for r in done.results} == {1}
    assert len(done.of(EndpointPaused)) == len(done.of(EndpointResumed)) > 0


async def test_every_request_is_refused_in_unknown_words_to_the_end(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If that lasts for the whole patience, the run ends with exit code 4, and no image has failed."""
    photos(12)
    refused = UNKNOWN_WORDS["400-unloaded"]
    endpoint.refusal = lambda request: refused if len(endpoint.questions) > 4 else None
    done = await ran(**asked, concurrency=3, give_up_after=0.3)
    assert isinstance(done.error, UnavailableError)
    assert "Model unloaded" in str(done.error)
    assert failures(done) == []


async def test_a_canary_that_was_never_answered_accuses_no_endpoint(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the endpoint refuses canaries anyway, the refusal of a picture fails that image without a pause."""
    photos(6)
    is_first = first_picture([])
    small = error("openai", 400, "pictures must be 256 pixels wide")
    endpoint.refusal = lambda request: small if request.is_canary or is_first(request) else None
    done = await ran(**asked, concurrency=2)
    assert [f.kind for f in failures(done)] == ["rejected"]
    assert done.of(EndpointPaused) == []


async def test_a_firewall_refuses_the_prompt(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If the canary is answered and any picture with the prompt is refused, the set-up is wrong."""
    photos(4)
    endpoint.refusal = lambda request: None if request.is_canary else FIREWALL
    done = await ran(**asked, prompt="' OR 1=1; DROP TABLE pictures")
    assert isinstance(done.error, FatalBackendError)
    assert done.results == []


async def test_many_pictures_refused_in_a_row(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If a firewall refuses one image after another, the later ones are left to the next run."""
    photos(12)
    endpoint.refusal = lambda request: (
        FIREWALL if request.pictures and request.pictures[0].width == 64 and (request.chat or 0) > 1 else None
    )
    done = await ran(**asked, concurrency=1)
    assert done.error is None
    kept = [failure.retryable for failure in failures(done)]
    assert kept == [False] * (MANY_IN_A_ROW - 1) + [True] * (10 - MANY_IN_A_ROW + 1)


async def test_a_single_refusal_that_passes(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A single 404 of a proxy costs neither an attempt nor a pause: the image is asked about again."""
    photos(3)
    closed = [CLIENT_REFUSED["404"]]
    endpoint.refusal = lambda request: closed.pop() if closed and request.chat == 1 else None
    done = await ran(**asked, concurrency=1)
    assert [(r.ok, r.attempts) for r in done.results] == [(True, 1)] * 3
    assert done.of(EndpointPaused) == []


async def test_a_file_url_is_still_a_wrong_set_up(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """A server that cannot read files ends the run at once: another picture would be sent without a file."""
    photos(2)
    done = await ran(**asked, file_urls=True, max_size=0)
    assert isinstance(done.error, FatalBackendError)
    assert "--allowed-local-media-path" in str(done.error)
    assert json.dumps(endpoint.questions[0].body).count("file://") == 1


def checked(url: str, **options: object) -> RefusalCheck:
    """The backend of a run with these options, with its check."""
    given = {"backend": "vllm", "base_url": url, "model": "tiny-vision", **options}
    return RefusalCheck(KINDS["vllm"].open(url, **options), RunConfig.of("photos", **given), Bugs(ignore))


@pytest.mark.parametrize(
    ("script", "accept", "kind"),
    [
        (["ok", "held", "503-empty"], frozenset(), "busy"),
        (["ok", "held", "503-loading"], frozenset(), "down"),
        (["ok", "503-empty"], frozenset(), "down"),
        (["ok", "held", "503-empty"], ANY_FLAW, "down"),
        (["held", "503-empty"], frozenset(), "down"),
    ],
    ids=["among others", "with a text", "alone", "after a canary", "before an answer"],
)
async def test_a_503_without_a_text(
    endpoint: Endpoint, script: list[str], accept: frozenset[str], kind: str
) -> None:
    """It means busy only if an image was answered before, and another request is in flight now."""
    endpoint.script = script
    async with checked(endpoint.url) as backend:
        if script[0] == "ok":
            await backend.complete(replace(question(), accept=accept))
        others = [asyncio.create_task(backend.complete(question()))] if "held" in script else []
        await asyncio.to_thread(endpoint.until, lambda: endpoint.open_questions == len(others))
        with pytest.raises(UnavailableError) as caught:
            await backend.complete(question())
        endpoint.released = True
        await asyncio.gather(*others)
    assert caught.value.kind == kind


async def test_a_useless_answer_is_an_answer(endpoint: Endpoint) -> None:
    """After an answer that is empty, too, a 403 for one picture is a failure of that picture."""
    endpoint.script = ["empty"]
    is_first = first_picture([])
    endpoint.refusal = lambda request: FIREWALL if len(endpoint.questions) > 1 and is_first(request) else None
    async with checked(endpoint.url) as backend:
        with pytest.raises(BadAnswerError):
            await backend.complete(question())
        with pytest.raises(RejectedError, match="accepts another one"):
            await backend.complete(question())


async def test_a_question_without_a_picture_is_not_asked_about_another(endpoint: Endpoint) -> None:
    """If a request has no picture, its refusal is the error, and no other request is sent."""
    endpoint.refusal = lambda request: error("openai", 400, "seed is odd")
    async with checked(endpoint.url, seed=3) as backend:
        with pytest.raises(RejectedError, match="seed is odd"):
            await backend.complete(replace(question(seed=3), images=()))
    assert len(endpoint.requests) == 1


async def test_a_failure_that_names_an_option_may_pass(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If another picture is accepted after a 500 that names an option, the image gets another attempt."""
    photos(4)
    closed = [error("openai", 500, "the worker for logprobs was lost")]
    endpoint.refusal = lambda request: closed.pop() if closed and request.pictures else None
    done = await ran(**asked, logprobs=2, concurrency=1, canary=False)
    assert done.error is None
    assert sorted((r.ok, r.attempts) for r in done.results) == [(True, 1)] * 3 + [(True, 2)]


async def test_refusals_between_answers_are_not_in_a_row(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """If a firewall refuses every second image, each of them has failed for good."""
    photos(16)
    seen: list[str] = []

    def refusal(request: Received) -> Reply | None:
        if request.is_canary or request.pictures[0].width != 64:  # a question of vlmbatch itself
            return None
        if request.pictures[0].sha256 not in seen:
            seen.append(request.pictures[0].sha256)
        return FIREWALL if seen.index(request.pictures[0].sha256) % 2 else None

    endpoint.refusal = refusal
    done = await ran(**asked, concurrency=1)
    assert done.error is None
    assert [failure.retryable for failure in failures(done)] == [False] * 8


async def test_the_type_of_an_error_may_name_the_option(
    photos: Photos, endpoint: Endpoint, asked: dict[str, Any]
) -> None:
    """An option that only the code of the error names is told as it was typed."""
    photos(1)
    refused = as_json(400, {"error": {"message": "Not supported.", "code": "logprobs"}})
    endpoint.refusal = lambda request: refused if "logprobs" in request.body else None
    done = await ran(**asked, logprobs=2)
    assert str(done.error).startswith("the endpoint does not accept --logprobs 2: Not supported.")


async def test_another_refusal_at_the_second_try(endpoint: Endpoint) -> None:
    """If the image is refused for another reason when it is asked about again, that reason is the error."""
    replies = [None, FIREWALL, None, as_json(402, {"error": {"message": "Pay first."}})]
    endpoint.refusal = lambda request: replies.pop(0)
    async with checked(endpoint.url) as backend:
        await backend.complete(question())
        with pytest.raises(FatalBackendError, match=r"Pay first\.") as caught:
            await backend.complete(question())
    assert caught.value.kind == "quota"
