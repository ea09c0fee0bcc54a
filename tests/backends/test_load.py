"""The load of a server: its numbers of running and waiting requests in Prometheus' format."""

import asyncio

import pytest
from backend_contract import KINDS, closed_port, question
from endpoint import Endpoint

from vlmbatch.backends.openai.replies import load_in
from vlmbatch.records import Load

TELLING = ("vllm", "llama-server", "sglang", "openai", "auto-vllm")
SILENT = ("ollama", "lmstudio", "openrouter", "auto-ollama")


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (
            'vllm:num_requests_running{engine="0",model_name="a b} 7"} 3.0\n'
            'vllm:num_requests_running{engine="1",model_name="m"} 2.0\n'
            'vllm:num_requests_waiting{engine="0",model_name="m"} 1e+01\n'
            'vllm:num_requests_waiting{engine="1",model_name="m"} 4\n'
            'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0\n',
            Load(running=5, waiting=14),
        ),
        ('sglang:num_running_reqs{tp_rank="0"} 2.0\nsglang:num_queue_reqs 5.0\n', Load(running=2, waiting=5)),
        (
            "# HELP llamacpp:requests_processing 12\nllamacpp:requests_processing 1\n"
            "llamacpp:requests_deferred 6 1700000000000\r\n",
            Load(running=1, waiting=6),
        ),
        ("vllm:num_requests_running 3.0\n", None),
        ("vllm:num_requests_running NaN\nvllm:num_requests_waiting NaN\n", None),
        ("<html>vllm:num_requests_running 3</html>", None),
        ("", None),
    ],
)
def test_load_is_read(text: str, load: Load | None) -> None:
    """The two numbers are found under the names of three servers and summed over their engines."""
    assert load_in(text) == load


@pytest.mark.parametrize("name", TELLING)
async def test_a_queue_is_reported(name: str) -> None:
    """With five requests at a server with two slots, two are running and three are waiting."""
    with KINDS[name].endpoint(slots=2, script=["held"] * 5) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.preflight()
            assert await backend.load() == Load(running=0, waiting=0)
            asking = [asyncio.create_task(backend.complete(question())) for _ in range(5)]
            await asyncio.to_thread(endpoint.until, lambda: endpoint.open_questions == 5)
            assert await backend.load() == Load(running=2, waiting=3)
            endpoint.released = True
            await asyncio.gather(*asking)


@pytest.mark.parametrize("name", SILENT)
async def test_servers_without_metrics_are_not_queried(name: str) -> None:
    """Servers without these numbers get no request for /metrics."""
    with KINDS[name].endpoint() as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.preflight()
            assert await backend.load() is None
    assert "/metrics" not in [r.path for r in endpoint.requests]


@pytest.mark.parametrize("mode", ["404-route", "405", "401", "not_base64", "html200"])
async def test_missing_metrics_are_requested_once(mode: str) -> None:
    """/metrics is requested only once if the server lacks it (llama-server sends 501 without --metrics)."""
    with Endpoint(routes={"/metrics": mode}) as endpoint:
        async with KINDS["vllm"].open(endpoint.url) as backend:
            assert [await backend.load(), await backend.load()] == [None, None]
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("mode", ["404-route", "500", "503-busy", "429", "html200", "html502"])
async def test_an_unknown_server_is_requested_once(mode: str) -> None:
    """A server of unknown type that does not report the load at once is never queried again for it."""
    with Endpoint(routes={"/metrics": mode}, owned_by="me") as endpoint:
        async with KINDS["openai"].open(endpoint.url) as backend:
            await backend.preflight()
            assert [await backend.load(), await backend.load()] == [None, None]
    assert [r.path for r in endpoint.requests].count("/metrics") == 1


async def test_an_unknown_server_with_metrics_is_polled() -> None:
    """A server of unknown type that has reported its load is queried again after a transient failure."""
    with Endpoint(owned_by="me") as endpoint:
        async with KINDS["openai"].open(endpoint.url) as backend:
            assert await backend.load() == Load(running=0, waiting=0)
            endpoint.routes = {"/metrics": "500"}
            assert await backend.load() is None
            endpoint.routes.clear()
            assert await backend.load() == Load(running=0, waiting=0)


@pytest.mark.parametrize("mode", ["500", "503-busy", "429", "rst", "html502"])
async def test_a_passing_failure(mode: str) -> None:
    """A passing failure returns None, raises nothing, and the next call queries again."""
    with Endpoint(routes={"/metrics": mode}) as endpoint:
        async with KINDS["vllm"].open(endpoint.url) as backend:
            assert await backend.load() is None
            endpoint.routes.clear()
            assert await backend.load() == Load(running=0, waiting=0)


async def test_a_server_that_is_down() -> None:
    """The load of a server that is down is None."""
    with closed_port() as url:
        async with KINDS["vllm"].open(url) as backend:
            assert await backend.load() is None
