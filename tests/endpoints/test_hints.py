"""Helper requests: none of them ends, blocks or delays a run whose images are answered."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backend_contract import closed_port
from endpoint import Endpoint
from loop_clock import skipping
from running import Ran, ran
from selection import mostly_long

from vlmbatch.backends import auto
from vlmbatch.backends.http import hints
from vlmbatch.backends.http.wire import CONNECT_TIMEOUT_S
from vlmbatch.commands.doctor import Finding, check_up
from vlmbatch.commands.models import take_inventory
from vlmbatch.config import RunConfig
from vlmbatch.errors import FatalBackendError, UnavailableError
from vlmbatch.events import EndpointPaused, Notice, PreflightDelayed, RunStarted

Photos = Callable[..., Path]

STREAM = 'body:data: {"id": "tiny-vision"}\n\ndata: [DONE]\n\n'
LINES = 'body:{"name": "tiny-vision"}\n{"name": "tiny-vision"}\n'
ODD = (
    *(
        "404-route",
        "401",
        "403-empty",
        "status:405",
        "status:407",
        "500",
        "status:501",
        "503-loading",
        "503-empty",
    ),
    *("429:1", "302", "hang", "trickle", "rst", "closenoresp", "shortbody", "html200", "html502"),
    *("body:", "body:[]", "body:5", 'body:"no"', "body:{}", 'body:{"data": null, "models": 5}'),
    *(STREAM, LINES),
)
"""The replies of a helper request: statuses, silence, broken connections, and bodies of another shape."""
FEW = ("404-route", "403-empty", "503-empty", "hang", "html200", "body:[]")
"""The replies of the normal run."""
each_odd = pytest.mark.parametrize("mode", mostly_long(ODD, FEW))
RUN = {
    "/api/tags": ("ollama", "vllm"),
    "/api/show": ("ollama", "vllm"),
    "/v1/models": ("llama-server", "llamacpp"),
    "/props": ("llama-server", "llamacpp"),
}
"""The helper requests before the first image: their --backend, and the `owned_by` of the server's models.

test_helper_requests.py has those of the time after it.
"""
VERSIONS = {"/api/version": ("ollama", "vllm"), "/version": ("vllm", "vllm")}
"""The requests for the version, in the same form. A run does not need the version, so no note reports it."""
PROPS = {"modalities": {"vision": True}, "total_slots": 2}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Endpoint]]:
    """A server for each `owned_by`; its routes are set by the tests."""
    with Endpoint() as ollama, Endpoint(owned_by="llamacpp", props=PROPS) as llama:
        yield {"vllm": ollama, "llamacpp": llama}


async def answered(server: Endpoint, routes: dict[str, str], **options: object) -> Ran:
    """A run of two images over this server, in which both must be answered."""
    server.routes = routes
    with skipping(server, hints.HINT_S):
        done = await ran(base_url=server.url, model="tiny-vision", **options)
    assert done.error is None, done.error
    assert [result.ok for result in done.results] == [True, True]
    assert not done.of(EndpointPaused)
    return done


def notes(done: Ran) -> list[str]:
    """The notes of a run about helper requests."""
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    told = (*started.endpoint.notes, *started.notes)
    return [note for note in told if "no usable reply" in note or "does not list" in note]


@each_odd
@pytest.mark.parametrize("path", RUN)
async def test_a_run_goes_on_without_a_helper_request(
    photos: Photos, servers: dict[str, Endpoint], path: str, mode: str
) -> None:
    """Whatever a helper request gets, all images of a run are answered, and at most one note says so."""
    photos(2)
    backend, owner = RUN[path]
    done = await answered(servers[owner], {path: mode}, backend=backend)
    assert len(notes(done)) <= 1
    assert all(path in note or "does not list" in note for note in notes(done))


@each_odd
@pytest.mark.parametrize("path", VERSIONS)
async def test_a_run_goes_on_without_the_version(
    photos: Photos, servers: dict[str, Endpoint], path: str, mode: str
) -> None:
    """Whatever the request for the version gets, all images of a run are answered, and no note says so."""
    photos(2)
    backend, owner = VERSIONS[path]
    done = await answered(servers[owner], {path: mode}, backend=backend)
    assert notes(done) == []
    assert {result.endpoint.version for result in done.results} == {None}


@pytest.mark.parametrize("path", RUN)
async def test_a_note_names_the_request_that_failed(
    photos: Photos, servers: dict[str, Endpoint], path: str
) -> None:
    """A helper request that fails is one note at the start of the run, with its path and its reason."""
    photos(2)
    backend, owner = RUN[path]
    (note,) = notes(await answered(servers[owner], {path: "500"}, backend=backend))
    assert path in note
    assert "HTTP 500" in note


@pytest.mark.parametrize("mode", FEW)
@pytest.mark.parametrize("backend", ["auto", "ollama", "openai"])
async def test_a_run_goes_on_without_any_helper_request(
    photos: Photos, servers: dict[str, Endpoint], backend: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all helper requests fail, vlmbatch tests it with a picture, also without --backend."""
    monkeypatch.setattr(auto, "HEAD_START_S", 1000.0)  # the two hints that hang use up the real one
    photos(2)
    paths = ("/api/tags", "/api/show", "/v1/models", "/props")
    done = await answered(servers["vllm"], dict.fromkeys(paths, mode), backend=backend)
    assert {result.endpoint.backend for result in done.results} == {backend.replace("auto", "ollama")}


@pytest.mark.parametrize("mode", ["403-empty", "500", "hang", "html200"])
async def test_the_other_api_is_found_without_helper_requests(
    photos: Photos, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --backend, a server of OpenAI's form is found although all other paths fail in any way."""
    # both APIs are tried at once: a skip must be shorter than the time limit of the other one's connection
    monkeypatch.setattr(hints, "HINT_S", CONNECT_TIMEOUT_S - 1)
    photos(2)
    with Endpoint(speaks=["openai"]) as server:
        routes = dict.fromkeys(("/api/tags", "/api/show", "/api/chat", "/v1/models"), mode)
        done = await answered(server, routes)
    assert {result.endpoint.backend for result in done.results} == {"openai"}


@each_odd
@pytest.mark.parametrize(
    ("path", "backend", "owner"),
    [("/api/ps", "ollama", "vllm"), ("/api/show", "ollama", "vllm"), ("/props", "openai", "llamacpp")],
)
async def test_models_are_listed_without_the_other_requests(
    servers: dict[str, Endpoint], path: str, backend: str, owner: str, mode: str
) -> None:
    """`models` shows the list of the server, whatever its other helper requests get."""
    servers[owner].routes = {path: mode}
    config = RunConfig.of(".", backend=backend, base_url=servers[owner].url)
    with skipping(servers[owner], hints.HINT_S):
        found = await take_inventory(config)
    assert (len(found.models), found.missing) == (2, ())


@each_odd
@pytest.mark.parametrize(
    ("paths", "backend", "owner"),
    [
        (("/api/version", "/api/ps"), "ollama", "vllm"),
        (("/api/tags", "/api/show"), "ollama", "vllm"),
        (("/props",), "openai", "llamacpp"),
        (("/v1/models",), "openai", "vllm"),
        (("/version",), "openai", "vllm"),
    ],
)
async def test_doctor_agrees_with_a_run(
    servers: dict[str, Endpoint], paths: tuple[str, ...], backend: str, owner: str, mode: str
) -> None:
    """doctor passes an endpoint whose helper requests fail, as a run does, and names the run to type."""
    servers[owner].routes = dict.fromkeys(paths, mode)
    config = RunConfig.of(".", backend=backend, base_url=servers[owner].url, model="tiny-vision")
    with skipping(servers[owner], hints.HINT_S):
        found: list[Finding] = [finding async for finding in check_up(config, None)]
    assert [finding for finding in found if finding.mark == "wrong"] == []
    assert found[-1].mark == "ok"


async def test_a_bare_list_names_the_model(photos: Photos, endpoint: Endpoint) -> None:
    """A list of models without an object around it is read, also if --model does not name one."""
    photos(1)
    endpoint.routes = {"/v1/models": 'body:[{"id": "tiny-vision"}]'}
    done = await ran(base_url=endpoint.url, backend="openai")
    assert [(result.ok, result.endpoint.model) for result in done.results] == [(True, "tiny-vision")]
    assert notes(done) == []


async def test_each_failure_of_the_search_is_told(photos: Photos) -> None:
    """While no server listens, an event has the reason of the delay."""
    photos(1)
    with closed_port() as url:
        done = await ran(base_url=url, backend="openai", model="tiny-vision", give_up_after=0.3)
    assert done.error is not None
    assert {event.message for event in done.events if isinstance(event, PreflightDelayed)} == {
        str(done.error)
    }


@pytest.mark.parametrize("mode", [*FEW, "trickle"])
async def test_a_timeout_whose_reason_cannot_be_asked(photos: Photos, mode: str) -> None:
    """Whatever /api/ps gets after a timeout, the request is sent again, and all images are answered."""
    photos(2)
    with Endpoint(script=["hang"]) as server:
        routes = {"/api/ps": mode}
        # longer than one skip, which the other question loses if it is in flight while /api/ps hangs
        done = await answered(server, routes, backend="ollama", timeout=2 * hints.HINT_S, concurrency=1)
    assert not [event for event in done.of(Notice) if "did not answer in time" in event.message]
    assert sorted(result.attempts for result in done.results) == [1, 2]


@pytest.mark.parametrize("backend", ["ollama", "llama-server"])
async def test_a_model_that_is_reported_as_blind(
    photos: Photos, servers: dict[str, Endpoint], backend: str
) -> None:
    """A model that the server reports as blind is used if pictures reach it; with --no-canary it is not."""
    photos(2)
    server = servers["vllm" if backend == "ollama" else "llamacpp"]
    routes = {
        "/api/show": 'body:{"capabilities": ["completion"]}',
        "/props": 'body:{"modalities": {"vision": false}}',
    }
    await answered(server, routes, backend=backend)
    done = await ran(base_url=server.url, model="tiny-vision", backend=backend, canary=False)
    assert isinstance(done.error, FatalBackendError)
    assert (done.error.kind, done.results) == ("no_vision", [])
    assert "--no-canary" in str(done.error)


async def test_a_server_that_answers_nothing_is_awaited(photos: Photos, servers: dict[str, Endpoint]) -> None:
    """If the question with a picture fails, too, the run waits; events and error have both reasons."""
    photos(1)
    server = servers["vllm"]
    server.routes = {"/v1/models": "500", "/v1/chat/completions": "503-loading"}
    done = await ran(backend="vllm", base_url=server.url, model="tiny-vision", give_up_after=0.3)
    assert isinstance(done.error, UnavailableError)
    told = [event.message for event in done.events if isinstance(event, PreflightDelayed)]
    assert "vlmbatch tests it with a picture" in told[0]
    for reasons in (*told[1:], str(done.error)):
        assert "/v1/models" in reasons
        assert "Loading model" in reasons


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
async def test_a_refusal_of_the_question_ends_the_run(
    photos: Photos, servers: dict[str, Endpoint], backend: str
) -> None:
    """A key that helper request and question refuse ends the run with exit code 2."""
    photos(1)
    server = servers["vllm"]
    paths = ("/api/tags", "/api/show", "/api/chat", "/v1/models", "/v1/chat/completions")
    server.routes = dict.fromkeys(paths, "401")
    done = await ran(backend=backend, base_url=server.url, model="tiny-vision")
    assert isinstance(done.error, FatalBackendError)
    assert done.error.kind == "auth"


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
async def test_without_a_list_the_model_must_be_named(
    photos: Photos, servers: dict[str, Endpoint], backend: str
) -> None:
    """Without --model and without a list of models, the error says to name the model."""
    photos(1)
    server = servers["vllm"]
    server.routes = {"/api/tags": "403-empty", "/v1/models": "403-empty"}
    done = await ran(backend=backend, base_url=server.url)
    assert isinstance(done.error, FatalBackendError)
    assert "name the model with --model" in str(done.error)
