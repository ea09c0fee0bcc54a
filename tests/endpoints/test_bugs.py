"""Bugs: whatever fails inside vlmbatch costs one image, one hint or one endpoint, and never the run."""

import gc
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from backend_contract import question
from command import breaking, records, run
from endpoint import Endpoint, Received
from endpoint.messages import Reply
from endpoint.wires import as_json
from running import ran

import vlmbatch
from vlmbatch.backends.confirm import ANY_FLAW
from vlmbatch.backends.forwarding import ForwardingBackend
from vlmbatch.backends.registry import BACKENDS
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.refusal_check import RefusalCheck
from vlmbatch.errors import FatalBackendError, InternalError, ResourceError, UnavailableError
from vlmbatch.events import BugFound, Event, Notice, RetryScheduled, ignore
from vlmbatch.protocols import Backend, Tell, quiet
from vlmbatch.records import Completion, Generation, Load, Request, Result
from vlmbatch.records import Endpoint as Found
from vlmbatch.sources.directory import DirectorySource

Photos = Callable[..., Path]
Plug = Callable[..., None]
pytestmark = pytest.mark.usefixtures("all_from_the_start")
HINTS = ("warm_up", "load", "probe", "why_slow", "listens", "unload")


@dataclass
class Bug:
    """Where a backend has a bug: in these methods, and in the requests about images with these numbers."""

    methods: tuple[str, ...] = ()
    images: Callable[[int], bool] = lambda number: False
    error: type[Exception] = OverflowError
    values: tuple[str, ...] = ()
    """Methods that return a value that breaks their caller."""
    numbers: Callable[[int], bool] = lambda number: False
    """The images whose answer has a number with more digits than Python prints."""


class Odd:
    """A value that is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("neither")


class Buggy(ForwardingBackend):
    """A backend with a bug in front of a real one."""

    def __init__(self, inner: Backend, bug: Bug) -> None:
        self._inner = inner
        self._bug = bug
        self._numbers = count(1)

    @property
    def inner(self) -> Backend:
        return self._inner

    def _fail(self, name: str) -> None:
        if name in self._bug.methods:
            raise self._bug.error("int too large to convert to float")

    async def preflight(self, tell: Tell = quiet) -> Found:
        self._fail("preflight")
        return await super().preflight(tell)

    async def probe(self) -> None:
        self._fail("probe")
        await super().probe()

    async def listens(self) -> bool:
        self._fail("listens")
        if "listens" in self._bug.values:
            return Odd()  # type: ignore[return-value]
        return await super().listens()

    async def load(self) -> Load | None:
        self._fail("load")
        if "load" in self._bug.values:
            return Load(running=1, waiting="many")  # type: ignore[arg-type]
        return await super().load()

    async def why_slow(self) -> str | None:
        self._fail("why_slow")
        return await super().why_slow()

    async def warm_up(self, generation: Generation, deadline_s: float) -> float:
        self._fail("warm_up")
        return await super().warm_up(generation, deadline_s)

    async def unload(self) -> None:
        self._fail("unload")
        await super().unload()

    async def complete(self, request: Request) -> Completion:
        done = await super().complete(request)
        if request.accept >= ANY_FLAW:
            self._fail("canary")
            return done
        number = next(self._numbers)
        if self._bug.images(number):
            raise self._bug.error("int too large to convert to float")
        return replace(done, data=10**5000) if self._bug.numbers(number) else done


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Puts a bug into the backend of one kind at one endpoint."""

    def put(endpoint: Endpoint, bug: Bug, backend: str = "vllm") -> None:
        real = BACKENDS[backend]

        def opened(config: RunConfig, environ: Mapping[str, str]) -> Backend:
            made = real(config, environ)
            return Buggy(made, bug) if made.place.startswith(endpoint.url) else made

        monkeypatch.setitem(BACKENDS, backend, opened)  # type: ignore[arg-type]  # it is a dict

    return put


@pytest.fixture
def other() -> Iterator[Endpoint]:
    """A second endpoint."""
    with Endpoint() as running:
        yield running


def at(*endpoints: Endpoint, **options: Any) -> dict[str, Any]:
    """Options that select these endpoints."""
    return {"backend": "vllm", "model": "tiny-vision", "base_url": tuple(e.url for e in endpoints), **options}


def bugs(events: list[Event]) -> list[BugFound]:
    """The bugs that were reported."""
    return [event for event in events if isinstance(event, BugFound)]


async def test_a_bug_costs_one_image(photos: Photos, endpoint: Endpoint, plug: Plug) -> None:
    """An image whose answer vlmbatch cannot handle fails as `internal`, and the others are answered."""
    photos(12)
    plug(endpoint, Bug(images=lambda number: number in (3, 7)))
    done = await ran(**at(endpoint, concurrency=1, output="o.jsonl"))
    assert done.error is None
    failures = [result.failure for result in done.results if result.failure]
    assert [(failure.kind, failure.retryable) for failure in failures] == [("internal", True)] * 2
    assert "OverflowError: int too large to convert to float" in failures[0].message
    assert len(done.ids) == 12
    assert not done.of(RetryScheduled)
    (told,) = bugs(done.events)
    assert told.message.startswith(f"{endpoint.url}/v1: a bug in vlmbatch: OverflowError")
    assert "in complete" in told.trace
    plug(endpoint, Bug())
    again = await ran(**at(endpoint, output="o.jsonl"))
    assert len(again.ids) == 2
    assert all(result.ok for result in again.results)


async def test_a_bug_outside_of_the_backend_costs_one_image(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug while an image is read costs that image; its record and the notice name it."""
    photos(4)
    real = DirectorySource.read

    def read(self: DirectorySource, ref: Any) -> Any:
        if ref.id.endswith("p0002.jpg"):
            raise KeyError("a bug")
        return real(self, ref)

    monkeypatch.setattr(DirectorySource, "read", read)
    done = await ran(**at(endpoint))
    assert done.error is None
    (failed,) = [result for result in done.results if not result.ok]
    assert failed.failure is not None
    assert (Path(failed.id).name, failed.failure.kind) == ("p0002.jpg", "internal")
    (told,) = bugs(done.events)
    assert told.message.startswith(
        f"{failed.id}: a bug in vlmbatch: KeyError: 'a bug'; report it; the run goes on"
    )


async def test_a_record_that_cannot_be_written_costs_one_image(
    photos: Photos, endpoint: Endpoint, plug: Plug
) -> None:
    """If vlmbatch cannot make a record of an answer, it records a failure, and the run goes on."""
    photos(6)
    plug(endpoint, Bug(numbers=lambda number: number == 3))
    done = await ran(**at(endpoint, concurrency=1, output="o.jsonl"))
    assert done.error is None
    lines = records(Path("o.jsonl").read_text())
    assert [line["error"] and line["error"]["kind"] for line in lines].count("internal") == 1
    assert len(lines) == len(done.ids) == 6
    assert sum(result.ok for result in done.results) == 5
    assert len(bugs(done.events)) == 1


async def test_ten_bugs_in_a_row_end_the_run(photos: Photos, endpoint: Endpoint, plug: Plug) -> None:
    """Ten images in a row end the run with exit code 1 and the traceback; an answer between them does not."""
    photos(40)
    plug(endpoint, Bug(images=lambda number: number > 25 or number % 10 > 0))
    done = await ran(**at(endpoint, concurrency=1, output="o.jsonl"))
    assert isinstance(done.error, InternalError)
    assert done.error.exit_code == 1
    assert "10 images in a row" in str(done.error)
    assert str(done.error).endswith("OverflowError: int too large to convert to float\n")
    assert 20 < len(done.results) < 40
    assert sum(result.ok for result in done.results) == 2
    assert {result.failure.kind for result in done.results if result.failure} == {"internal"}


@pytest.mark.parametrize("methods", [(), ("canary",), (*HINTS, "canary"), ("preflight",)], ids=str)
async def test_a_pool_with_a_member_that_vlmbatch_cannot_handle(
    photos: Photos, endpoint: Endpoint, other: Endpoint, plug: Plug, methods: tuple[str, ...]
) -> None:
    """If one of two endpoints makes vlmbatch fail, the other one answers every image."""
    photos(60)
    plug(endpoint, Bug(methods=methods, images=lambda number: True))
    done = await ran(
        **at(endpoint, other, concurrency=4, give_up_after=0.2 if methods == ("preflight",) else None)
    )
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 60
    assert [result.failure for result in done.results if result.failure] == []
    assert {result.endpoint.url for result in done.results} == {f"{other.url}/v1"}
    assert bugs(done.events)
    lost = [e.message for e in done.events if isinstance(e, Notice) and "gets no more images" in e.message]
    assert len(lost) == (methods != ("preflight",))


@pytest.mark.parametrize("methods", [(), ("preflight",)], ids=str)
async def test_a_fallback_answers_what_vlmbatch_cannot_handle(
    photos: Photos, endpoint: Endpoint, other: Endpoint, plug: Plug, methods: tuple[str, ...]
) -> None:
    """If the first endpoint makes vlmbatch fail, its fallback answers every image."""
    photos(20)
    plug(endpoint, Bug(methods=methods, images=lambda number: True))
    done = await ran(
        **at(
            endpoint,
            fallback=f"ollama:tiny-vision@{other.url}",
            give_up_after=0.2 if methods == ("preflight",) else None,
        )
    )
    assert done.error is None
    assert len(done.ids) == 20
    assert all(result.ok and result.fallback for result in done.results)


@pytest.mark.parametrize("backend", ["vllm", "ollama"])
async def test_a_bug_in_a_hint_costs_the_hint(
    photos: Photos, endpoint: Endpoint, plug: Plug, backend: str
) -> None:
    """Bugs in warm-up, load, probe, unload and canary cost no image."""
    photos(6)
    plug(endpoint, Bug(methods=(*HINTS, "canary")), backend)
    done = await ran(**at(endpoint, unload=True, concurrency=1) | {"backend": backend})
    assert done.error is None
    assert [result.ok for result in done.results] == [True] * 6
    assert bugs(done.events)
    assert any("could not prove" in e.message for e in done.events if isinstance(e, Notice))


async def test_a_bug_in_each_hint_has_a_value(endpoint: Endpoint) -> None:
    """After a bug the load and the reason of a delay are unknown, and the endpoint counts as listening."""
    told: list[Event] = []
    config = RunConfig.of("photos", **at(endpoint))
    real = BACKENDS["vllm"](config, {})
    async with RefusalCheck(Buggy(real, Bug(methods=HINTS)), config, Bugs(told.append)) as checked:
        assert await checked.load() is None
        assert await checked.why_slow() is None
        assert await checked.listens() is True
        for call in (checked.probe(), checked.unload(), checked.warm_up(Generation(), 1.0)):
            with pytest.raises(InternalError):
                await call
    assert len(bugs(told)) == 1  # one place of the code, reported once


@pytest.mark.parametrize("method", ["load", "listens"])
async def test_a_bug_that_watches_an_endpoint(
    photos: Photos, endpoint: Endpoint, plug: Plug, method: str
) -> None:
    """A bug in a task in the background is reported, and all images are answered."""
    photos(12)
    told: list[Event] = []
    plug(endpoint, Bug(values=(method,)))
    endpoint.hold_until(lambda: bool(bugs(told)), after=2)
    done = await ran(**at(endpoint), on_event=told.append)
    assert done.error is None
    assert [result.ok for result in done.results] == [True] * 12
    assert len(bugs(told)) == 1


async def test_a_single_endpoint_whose_preflight_fails(
    photos: Photos, endpoint: Endpoint, plug: Plug
) -> None:
    """If vlmbatch cannot handle the replies of the only endpoint, the run ends soon, with exit code 4."""
    photos(1)
    plug(endpoint, Bug(methods=("preflight",)))
    done = await ran(**at(endpoint))
    assert isinstance(done.error, UnavailableError)
    assert done.error.kind == "internal"
    assert "a bug in vlmbatch: OverflowError" in str(done.error)


async def test_a_machine_without_memory_is_no_bug(photos: Photos, endpoint: Endpoint, plug: Plug) -> None:
    """An error that the machine's resources cause still ends the run, and blames no image."""
    photos(3)
    plug(endpoint, Bug(images=lambda number: True, error=MemoryError))
    done = await ran(**at(endpoint))
    assert isinstance(done.error, ResourceError)
    assert done.results == []


async def test_a_session_returns_the_failure(endpoint: Endpoint, plug: Plug, photos: Photos) -> None:
    """In a session, a bug is the result of its call, even many times in a row; one warning reports it."""
    folder = photos(12)
    plug(endpoint, Bug(images=lambda number: number < 12))

    async def ask() -> list[Result]:
        async with vlmbatch.open_session(**at(endpoint)) as session:
            asked = session.question(prompt="Which animal?")
            return [await session.answer(path, asked) for path in sorted(folder.iterdir())]

    with pytest.warns(vlmbatch.VlmbatchWarning, match=r"a bug in vlmbatch: [^\n]*\nTraceback") as told:
        results = await ask()
    assert len(told) == 1
    kinds = [result.failure.kind if result.failure else None for result in results]
    assert kinds == ["internal"] * 11 + [None]


async def test_a_bug_keeps_no_picture(endpoint: Endpoint) -> None:
    """The error for a bug holds no frame, so that no picture lives as long as the error."""
    gc.freeze()  # objects of other tests are not searched
    config = RunConfig.of("photos", **at(endpoint))
    buggy = Buggy(BACKENDS["vllm"](config, {}), Bug(images=lambda number: True))
    async with RefusalCheck(buggy, config, Bugs(ignore)) as checked:
        with pytest.raises(InternalError) as caught:
            await checked.complete(question())
    error: BaseException | None = caught.value.with_traceback(None)
    while error is not None:
        assert error.__traceback__ is None
        error = error.__cause__ or error.__context__
    del caught
    gc.collect()
    kept = [each for each in gc.get_objects() if isinstance(each, types.FrameType)]
    assert not [frame for frame in kept if frame.f_code is Buggy.complete.__code__]


REFUSED = {"error": {"message": "not today", "type": "odd"}}


def refusing(request: Received) -> Reply | None:
    """A refusal in unknown words for every picture, except the pictures of vlmbatch itself."""
    return None if request.is_canary else as_json(400, REFUSED)


@pytest.mark.parametrize("canary", [True, False])
async def test_a_member_that_refuses_every_photo(
    photos: Photos, endpoint: Endpoint, other: Endpoint, canary: bool
) -> None:
    """An endpoint that answers the canary and refuses each photo in unknown words makes no image fail."""
    photos(60)
    endpoint.refusal = refusing
    done = await ran(**at(endpoint, other, concurrency=4, canary=canary))
    assert done.error is None
    assert len(done.ids) == len(set(done.ids)) == 60
    assert [result.failure for result in done.results if result.failure] == []
    lost = [e.message for e in done.events if isinstance(e, Notice) and "gets no more images" in e.message]
    assert len(lost) == 1
    assert lost[0].startswith(f"{endpoint.url}/v1 ")
    assert "not today" in lost[0]


async def test_an_image_that_both_members_refuse(photos: Photos, endpoint: Endpoint, other: Endpoint) -> None:
    """An image that all endpoints refuse in unknown words is `rejected`, and no endpoint is lost for it."""
    photos(30)
    bad: list[str] = []

    def refuse(request: Received) -> Reply | None:
        if request.is_canary or not request.pictures:
            return None
        if len(bad) < 4 and request.pictures[0].sha256 not in bad:
            bad.append(request.pictures[0].sha256)
        return as_json(400, REFUSED) if request.pictures[0].sha256 in bad else None

    endpoint.refusal = other.refusal = refuse
    done = await ran(**at(endpoint, other, concurrency=4))
    assert done.error is None
    kinds = [result.failure.kind for result in done.results if result.failure]
    assert kinds == ["rejected"] * 4
    assert not [e for e in done.events if isinstance(e, Notice) and "gets no more images" in e.message]


async def test_all_members_refuse_every_photo(photos: Photos, endpoint: Endpoint, other: Endpoint) -> None:
    """If all endpoints refuse every photo, the run ends with exit code 2, as with a single one."""
    photos(40)
    endpoint.refusal = other.refusal = refusing
    done = await ran(**at(endpoint, other, concurrency=4))
    assert isinstance(done.error, FatalBackendError)
    assert "not today" in str(done.error)


BROKEN = "import vlmbatch.backends.ollama.backend as b\nb.check_answer = lambda *args, **options: 1 / 0"


@pytest.mark.parametrize(("flags", "traces"), [((), 1), (("-v",), 2)], ids=str)
def test_the_command_ends_with_the_traceback(
    photos: Photos, endpoint: Endpoint, flags: tuple[str, ...], traces: int
) -> None:
    """The command ends with 1 and the traceback of the last bug; --verbose shows that of the first, too."""
    photos(30)
    args = ("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-m", "tiny-vision", "-o", "o.jsonl")
    done = run(*args, *flags, "--summary", "s.json", **breaking(Path("broken"), BROKEN))
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last):") == traces
    assert ("--verbose shows the traceback" in done.stderr) == (not flags)
    assert (
        "10 images in a row failed because of a bug in vlmbatch, so the run ends; report this bug"
        in done.stderr
    )
    assert done.stderr.count("ZeroDivisionError: division by zero") >= 2
    kinds = [record["error"]["kind"] for record in records(Path("o.jsonl").read_text())]
    assert kinds == ["internal"] * len(kinds)
    assert kinds
    assert json.loads(Path("s.json").read_text())["exit_code"] == 1
