"""The contract of all backends with a failing endpoint: always a BackendError of the right class."""

import asyncio
import os
import re
import resource
from dataclasses import replace

import pytest
from backend_contract import KINDS, Kind, babbling, closed_port, each_kind, question, reply
from loop_clock import skipping

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    ConfigError,
    FatalBackendError,
    RejectedError,
    StaleConnectionError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.protocols import Backend

FAULTS: dict[str, tuple[type[BackendError], str]] = {
    "rst": (TransientError, "connection"),
    "shortbody": (TransientError, "connection"),
    "closenoresp": (TransientError, "connection"),
    "html200": (TransientError, "bad_response"),
    "broken_json": (TransientError, "bad_response"),
    "500": (TransientError, "server_error"),
    "empty500": (TransientError, "server_error"),
    "html502": (TransientError, "server_error"),
    "html504": (TransientError, "timeout"),
    "408": (TransientError, "timeout"),
    "499": (TransientError, "server_error"),
    "runner_stopped": (TransientError, "crash"),
    "503-busy": (UnavailableError, "busy"),
    "503-loading": (UnavailableError, "down"),
    "429": (UnavailableError, "busy"),
    "down": (TransientError, "connection"),
    "302": (FatalBackendError, "wrong_url"),
    "401": (FatalBackendError, "auth"),
    "403-empty": (FatalBackendError, "auth"),
    "404-model": (FatalBackendError, "model_not_found"),
    "404-route": (FatalBackendError, "wrong_url"),
    "400": (RejectedError, "rejected"),
    "400-image": (RejectedError, "rejected"),
    "nested_json_error": (RejectedError, "rejected"),
    "413": (BadAnswerError, "body_too_large"),
    "context": (BadAnswerError, "context"),
    "length": (BadAnswerError, "truncated"),
    "empty": (BadAnswerError, "empty"),
    "empty_thinking": (BadAnswerError, "empty"),
    "loop": (BadAnswerError, "degenerate"),
    "content_filter": (RejectedError, "refused"),
    "finish_abort": (TransientError, "server_error"),
}


async def text_after_fault(backend: Backend) -> str:
    """The answer to one more question, asked again if its pooled connection was reset by the outage.

    A run asks again at once as well: the reset may reach the client only with the next request.
    """
    try:
        return (await backend.complete(question())).text
    except StaleConnectionError:
        return (await backend.complete(question())).text


@pytest.mark.parametrize("mode", FAULTS)
@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_fault_becomes_its_class(name: str, mode: str) -> None:
    """Each fault of an endpoint raises the right class and kind, and the backend stays usable."""
    wanted, kind = FAULTS[mode]
    with KINDS[name].endpoint(script=[mode]) as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.preflight()
            with pytest.raises(wanted) as caught:
                await backend.complete(question())
            endpoint.up()
            assert await text_after_fault(backend), "the fault left the backend unusable"
    assert (caught.value.kind, str(caught.value) != "") == (kind, True)
    assert not isinstance(caught.value, UnreachableError), "the connection was accepted"


@each_kind
async def test_closed_port(kind: Kind) -> None:
    """A closed port means that the endpoint is down, and the error shows its URL."""
    with closed_port() as url:
        async with kind.open(url) as backend:
            with pytest.raises(
                UnreachableError, match=rf"no connection to {url}\S*: Connection refused"
            ) as caught:
                await backend.preflight()
    assert caught.value.kind == "down"
    assert "--base-url" in str(caught.value)


@each_kind
async def test_outage_and_return(kind: Kind) -> None:
    """While the endpoint is down, requests and probes raise UnavailableError; later both work again."""
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            await asyncio.to_thread(endpoint.down)
            with pytest.raises(UnavailableError):
                await backend.complete(question())
            with pytest.raises(UnavailableError):
                await backend.probe()
            endpoint.up()
            await backend.probe()
            assert await text_after_fault(backend)


@pytest.mark.parametrize("name", ["ollama", "openai"])
@pytest.mark.parametrize("mode", ["hang", "trickle"])
async def test_deadline(name: str, mode: str) -> None:
    """A request that gets nothing, or a byte now and then, ends at --timeout; a helper request is a note."""
    routes = {"/api/tags": mode, "/api/show": mode, "/v1/models": mode}
    with KINDS[name].endpoint(script=[mode], routes=routes) as endpoint, skipping(endpoint, 5):
        async with KINDS[name].open(endpoint.url, timeout=5) as backend:
            found = await backend.preflight()
            assert re.search(rf"{endpoint.url}\S* within 5 s .--timeout", found.notes[0])
            with pytest.raises(TransientError, match=rf"{endpoint.url}\S* within 5 s .--timeout") as caught:
                await backend.complete(question())
            assert caught.value.kind == "timeout"


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_deadline_of_the_request(name: str) -> None:
    """A request ends at its own deadline, and the error shows that and not --timeout."""
    with KINDS[name].endpoint(script=["hang"]) as endpoint, skipping(endpoint, 50):
        async with KINDS[name].open(endpoint.url, timeout=100) as backend:
            with pytest.raises(TransientError, match=r"within 50 s$") as caught:
                await backend.complete(replace(question(), deadline_s=50))
    assert caught.value.kind == "timeout"


@each_kind
async def test_retry_after(kind: Kind) -> None:
    """The error has the seconds of Retry-After."""
    with kind.endpoint(script=["429:7"]) as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            with pytest.raises(UnavailableError) as caught:
                await backend.complete(question())
    assert caught.value.retry_after == 7.0


@each_kind
async def test_redirect_is_not_followed(kind: Kind) -> None:
    """Neither picture nor key is sent to the target of a redirect; the error shows the target."""
    with kind.endpoint() as goal:
        there = reply(b"", f"Location: {goal.url}/?user=1", status="307 Temporary Redirect")
        async with babbling(there) as url, kind.open(url) as backend:
            with pytest.raises(FatalBackendError, match=rf"redirects: to {goal.url}/ ") as caught:
                await backend.preflight()
    assert caught.value.kind == "wrong_url"
    assert not goal.requests


@each_kind
async def test_t4_tls_to_a_plain_port(kind: Kind) -> None:
    """https:// to an HTTP server is a fatal error with a hint at the URL."""
    async with (
        babbling(reply(b"", status="400 Bad Request")) as url,
        kind.open(url.replace("http:", "https:")) as backend,
    ):
        with pytest.raises(FatalBackendError, match="check http or https in the URL") as caught:
            await backend.preflight()
    assert caught.value.kind == "wrong_url"


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_server_that_hangs_up_on_tls(name: str) -> None:
    """If a server closes the connection during the TLS handshake, the error names http as a cause."""
    async with babbling(None) as url, KINDS[name].open(url.replace("http:", "https:")) as backend:
        with pytest.raises(UnavailableError, match="check that the server speaks https"):
            await backend.preflight()


@each_kind
async def test_key_that_an_endpoint_repeats(kind: Kind) -> None:
    """A key that the endpoint repeats in its error is masked in ours."""
    key = "geheim-0123456789"
    raw = reply({"error": f"the token {key} is not known"}, status="401 Unauthorized")
    async with babbling(raw) as url, kind.open(url, api_key=key) as backend:
        with pytest.raises(FatalBackendError, match=r"the token \[key\] is not known"):
            await backend.preflight()


@pytest.mark.parametrize("name", ["ollama", "openai"])
@pytest.mark.parametrize("key", ["“quoted”", "two\nlines"])
async def test_key_that_no_header_can_carry(name: str, key: str) -> None:
    """A key with typographic quotes or a line break inside is refused before anything is sent."""
    with pytest.raises(ConfigError, match="--api-key") as caught:
        KINDS[name].open("http://127.0.0.1:9", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_key_from_a_file(name: str) -> None:
    """The line break at the end of a key is ignored."""
    with KINDS[name].endpoint(api_key="some-key-123") as endpoint:
        async with KINDS[name].open(endpoint.url, api_key="some-key-123\n") as backend:
            assert (await backend.preflight()).model == "tiny-vision"


@pytest.mark.parametrize("name", ["ollama", "openai"])
@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "a..invalid", "no-such-host.invalid"])
async def test_t2_host_that_cannot_be(name: str, host: str) -> None:
    """A host name that does not exist, or is invalid, is an error that shows the URL."""
    async with KINDS[name].open(f"http://{host}:1") as backend:
        with pytest.raises((UnavailableError, FatalBackendError), match=f"http://{host}:1"):
            await backend.preflight()


@pytest.mark.parametrize("name", ["ollama", "openai"])
async def test_process_without_free_descriptors(name: str) -> None:
    """If no file descriptor is free, the error is fatal and names --concurrency and ulimit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with KINDS[name].endpoint() as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            asked = question()
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            try:
                with pytest.raises(FatalBackendError, match=r"--concurrency, or allow more .* ulimit -n"):
                    await backend.complete(asked)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
