"""The Python interface, with and without an event loop."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import closed_port
from command import run, start
from endpoint import Endpoint

import vlmbatch
from vlmbatch import open_session, run_batch
from vlmbatch.events import Event, RunFinished

Photos = Callable[..., Path]


def test_a_plain_loop_streams_results(photos: Photos, endpoint: Endpoint) -> None:
    """`for result in run_batch(...)` yields the result of every image; the summary is set after the last."""
    photos(5)
    batch = run_batch("photos", prompt="hi", base_url=endpoint.url, backend="ollama", model="tiny-vision")
    assert sorted(result.id for result in batch) == [f"photos/p{n:04}.jpg" for n in range(5)]
    assert batch.summary is not None
    assert batch.summary.succeeded == 5


def test_a_result_comes_before_the_run_has_ended(photos: Photos, endpoint: Endpoint) -> None:
    """Results are streamed: the first one arrives before all images are sent."""
    photos(50)
    batch = run_batch("photos", base_url=endpoint.url, backend="ollama", model="tiny-vision", concurrency=1)
    results = iter(batch)
    next(results)
    assert len(endpoint.questions) < 50
    assert sum(1 for _ in results) == 49


def test_leaving_the_loop_ends_the_run(photos: Photos, endpoint: Endpoint) -> None:
    """`break` ends the run and its thread, with hardly any request beyond those in flight."""
    photos(80)
    for _ in run_batch("photos", base_url=endpoint.url, backend="ollama", model="tiny-vision"):
        break
    assert len(endpoint.questions) < 40
    assert "vlmbatch" not in {thread.name for thread in threading.enumerate()}


def test_errors_of_the_run_reach_a_plain_loop(photos: Photos, endpoint: Endpoint) -> None:
    """An unknown model raises its own error class in the iterating thread, with a short traceback."""
    photos(1)
    with pytest.raises(vlmbatch.VlmbatchError, match="nope") as raised:
        list(run_batch("photos", base_url=endpoint.url, backend="ollama", model="nope"))
    assert len(raised.traceback) == 2, "the loop and the Batch, so that a notebook does not show fifty lines"


async def test_an_event_loop_streams_results_too(photos: Photos, endpoint: Endpoint) -> None:
    """`async for` yields the same results, and observers receive the events."""
    photos(3)
    heard: list[Event] = []
    batch = run_batch(
        "photos", base_url=endpoint.url, backend="vllm", model="tiny-vision", observers=[heard.append]
    )
    assert len([result async for result in batch]) == 3
    assert isinstance(heard[-1], RunFinished)


async def test_an_output_file_is_written_before_a_result_is_given(photos: Photos, endpoint: Endpoint) -> None:
    """The line of a result is in the output file before the result is yielded."""
    photos(4)
    batch = run_batch(
        "photos", base_url=endpoint.url, backend="ollama", model="tiny-vision", output="out.jsonl"
    )
    async for result in batch:
        assert f'"id":"{result.id}"' in Path("out.jsonl").read_text()


async def _run_async(**options: Any) -> None:
    async for _ in run_batch("photos", **options):
        pass


def _open(**options: Any) -> None:
    with open_session(**options):
        pass


async def _open_async(**options: Any) -> None:
    async with open_session(**options):
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda **options: list(run_batch("photos", **options)),
        lambda **options: asyncio.run(_run_async(**options)),
        _open,
        lambda **options: asyncio.run(_open_async(**options)),
    ],
)
def test_an_error_shows_its_message_and_hardly_more(use: Callable[..., object], folder: Path) -> None:
    """Without an endpoint, the traceback has two frames of vlmbatch at most, and the error has no cause."""
    with closed_port() as url, pytest.raises(vlmbatch.VlmbatchError, match="ollama serve") as raised:
        use(base_url=url, backend="ollama", model="m", give_up_after=0.1)
    home = str(Path(vlmbatch.__file__).parent)
    assert sum(str(step.path).startswith(home) for step in raised.traceback) <= 2
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"config": {"model": "m"}},
            r"config takes a RunConfig, not dict; write RunConfig.of_",
        ),
        ({"config": "vlmbatch.toml"}, "config takes a RunConfig, not str"),
        ({"observers": print}, r"observers takes a list of functions; write for example observers=\[print\]"),
        ({"observers": ["print"]}, "observers takes a list of functions"),
    ],
)
def test_a_value_of_another_type_is_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    """A config or an observer of a wrong type raises a TypeError in the call, which says what to write."""
    for call in (lambda: run_batch("photos", **wrong), lambda: open_session(**wrong)):
        with pytest.raises(TypeError, match=message):
            call()


def test_a_config_takes_the_place_of_options() -> None:
    """Options together with a config are refused, since it is unclear which of them count."""
    with pytest.raises(TypeError, match="either a config"):
        run_batch("photos", config=vlmbatch.RunConfig.of("other"), limit=3)


def test_nothing_is_written_to_standard_output(
    photos: Photos, endpoint: Endpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    """The Python interface prints nothing."""
    photos(2)
    list(run_batch("photos", base_url=endpoint.url, backend="ollama", model="tiny-vision"))
    assert capfd.readouterr() == ("", "")


def test_leaving_the_loop_does_not_wait_for_answers(photos: Photos, endpoint: Endpoint) -> None:
    """`break` while the endpoint hangs ends the run without waiting for the requests in flight."""
    photos(5)
    endpoint.script = ["ok", *["hang"] * 9]
    for _ in run_batch("photos", base_url=endpoint.url, backend="ollama", model="tiny-vision"):
        break
    assert "vlmbatch" not in {thread.name for thread in threading.enumerate()}


def test_stop_may_be_called_from_the_loop_body(photos: Photos, endpoint: Endpoint) -> None:
    """After stop() in a plain loop the results in flight arrive, and then the loop ends by itself."""
    photos(60)
    batch = run_batch("photos", base_url=endpoint.url, backend="ollama", model="tiny-vision")
    results = []
    for result in batch:
        results.append(result)
        batch.stop()
    assert len(results) == len(endpoint.questions) < 40
    assert batch.summary is not None
    assert batch.summary.stopped


def test_a_batch_runs_once(photos: Photos, endpoint: Endpoint) -> None:
    """Iterating a second time is refused."""
    photos(1)
    batch = run_batch("photos", base_url=endpoint.url, backend="ollama", model="tiny-vision")
    assert len(list(batch)) == 1
    with pytest.raises(RuntimeError, match="runs once"):
        list(batch)


def test_a_schema_may_be_a_dict(photos: Photos, endpoint: Endpoint) -> None:
    """run_batch() and open_session() take a schema as a dict; the endpoint gets its keys in this order."""
    photos(1)
    endpoint.answer = lambda request: '{"b": 1, "a": 2}'
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}}}
    options: dict[str, Any] = {"base_url": endpoint.url, "backend": "ollama", "model": "tiny-vision"}
    (result,) = run_batch("photos", **options, schema=schema)
    with open_session(**options, schema=schema) as session:
        other = session.answer("photos/p0000.jpg", session.question())
    assert [each.completion and each.completion.data for each in (result, other)] == [{"b": 1, "a": 2}] * 2
    assert result.run == other.run
    assert all(list(request.body["format"]["properties"]) == ["b", "a"] for request in endpoint.questions)


def test_a_list_of_paths_is_not_a_path() -> None:
    """A list in the place of a path is refused, and the message says how to pass several paths."""
    with pytest.raises(TypeError, match=r"not list; .*run_batch\(\*images\)"):
        run_batch(["photos/a.jpg"])  # type: ignore[arg-type]  # the mistake


def test_a_text_is_not_a_question(endpoint: Endpoint) -> None:
    """A prompt in the place of a question is refused with the way to make the question."""
    with (
        open_session(base_url=endpoint.url, backend="ollama", model="tiny-vision") as session,
        pytest.raises(TypeError, match=r"session\.question\(prompt="),
    ):
        session.answer("a.jpg", "Describe it.")  # type: ignore[arg-type]  # the mistake
    assert not endpoint.questions


def test_help_and_the_tab_key_know_all_names() -> None:
    """dir() and so help() have all public names, although each is imported on first use."""
    code = "import vlmbatch; print(*set(vlmbatch.__all__) - set(dir(vlmbatch)))"
    assert run("-c", code, command=(sys.executable,)).stdout == "\n"


OPENING = """
import sys
from vlmbatch import open_session

def tell(event):
    print(event, flush=True)

with open_session(model="m", backend="vllm", base_url=sys.argv[1], give_up_after=3600, observers=[tell]):
    pass
"""


def test_an_interrupt_does_not_wait_for_an_endpoint() -> None:
    """Ctrl-C, or an interrupted cell, ends a plain `with open_session` that waits for its endpoint."""
    with closed_port() as url:
        running = start(
            *("-c", OPENING, url),
            command=(sys.executable,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert running.stdout is not None
        assert "PreflightDelayed" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=240)
    assert told.rstrip().endswith("KeyboardInterrupt")
