"""Failures on the way to the endpoint, by their number in docs/failures.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Endpoint
from failing import Failing
from loop_clock import skipping

from vlmbatch.errors import ConfigError, FatalBackendError, UnreachableError
from vlmbatch.events import EndpointPaused, RetryScheduled

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def failing(request: pytest.FixtureRequest, photos: Photos, endpoint: Endpoint) -> Failing:
    """Runs over six photos, on both wires."""
    return Failing(photos, endpoint, request.param)


async def test_t1_closed_port(failing: Failing) -> None:
    """A closed port at the start ends the run as unreachable, with the reason."""
    failing.endpoint.down()
    done = await failing.run(give_up_after=0.1)
    assert isinstance(done.error, UnreachableError)
    assert "Connection refused" in str(done.error)
    assert done.results == []


async def test_t1_closed_port_in_the_middle(failing: Failing) -> None:
    """A closed port in the middle of a run is one pause, and no image fails."""
    done = await failing.passes("down", attempts=1)
    assert len(done.of(EndpointPaused)) == 1


async def test_t3_invalid_url(failing: Failing) -> None:
    """A --base-url that is no URL, or has no valid port, is a ConfigError."""
    for url in ("localhost:11434", "http://127.0.0.1:99999"):
        with pytest.raises(ConfigError, match="is not a URL"):
            await failing.run(base_url=url)


async def test_t5_kept_connection_that_was_closed(failing: Failing) -> None:
    """A request that is reset on a kept connection is sent again at once, without an attempt or a wait."""
    failing.endpoint.script = ["ok", "ok", "rst"]
    done = await failing.run(concurrency=1)
    assert [r.attempts for r in done.results] == [1] * 6
    assert done.of(RetryScheduled) == []
    assert len(failing.endpoint.questions) == 7


async def test_t6_reset_and_short_body(failing: Failing) -> None:
    """A reset, a cut body and a missing reply are retried."""
    await failing.passes("shortbody", "rst", "closenoresp", "shortbody")


async def test_t7_hang(failing: Failing) -> None:
    """A request that hangs ends at --timeout and is retried; an image that always hangs fails alone."""
    failing.options |= {"timeout": 60, "concurrency": 1}
    with skipping(failing.endpoint, 60):
        await failing.passes("hang", attempts=2)
        failing.endpoint.requests.clear()
        await failing.fails_alone("hang", "timeout", requests=4)


async def test_t7_all_hang(failing: Failing) -> None:
    """If every request hangs, the run ends as unavailable, without a record."""
    with skipping(failing.endpoint, 400):  # the time of a load and of one image
        await failing.gives_up("hang", timeout=100)


async def test_t8_trickle(failing: Failing) -> None:
    """A reply that trickles byte by byte ends at --timeout and is retried."""
    failing.options |= {"timeout": 60, "concurrency": 1}
    with skipping(failing.endpoint, 60):
        await failing.passes("trickle:0.01", attempts=2)


async def test_t10_loopback_uses_no_proxy(failing: Failing) -> None:
    """With HTTP_PROXY set, requests to an endpoint on this machine use no proxy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        await failing.passes(attempts=1)


async def test_t11_gateway_pages(failing: Failing) -> None:
    """An HTML page with 502 or 504 from a proxy is retried."""
    await failing.passes("html502", "html504")


async def test_t12_body_too_large(failing: Failing) -> None:
    """A 413 is retried with a smaller picture, with a warning; an image that always gets it fails."""
    done = await failing.passes("413", attempts=2)
    assert any("smaller picture" in w for r in done.results for w in r.warnings)
    failing.endpoint.script = lambda request: "413"
    done = await failing.run()
    assert [(r.failure.kind, r.attempts) for r in done.results if r.failure] == [("body_too_large", 3)] * 6


async def test_t12_all_bodies_too_large(failing: Failing, photos: Photos) -> None:
    """If ten pictures get a 413, the run ends with a fatal error that says what to set, without a record."""
    photos(12)
    failing.endpoint.script = lambda request: "413"
    done = await failing.run()
    assert isinstance(done.error, FatalBackendError)
    assert "client_max_body_size" in str(done.error)
    assert done.results == []


async def test_t13_login_page(failing: Failing) -> None:
    """An HTML page with status 200 is no answer, and is retried."""
    await failing.passes("html200", attempts=2)


async def test_t14_retry_after(failing: Failing) -> None:
    """A 429 with any form of Retry-After costs no attempt, and all images are answered."""
    for form in ("429:1", "429-ms:900", "429:Wed, 21 Oct 2015 07:28:00 GMT", "429:nan", "429:-5", "429"):
        failing.endpoint.requests.clear()
        await failing.passes(form, attempts=1)


async def test_t15_transient_statuses(failing: Failing) -> None:
    """408, 409 and 425 are retried."""
    await failing.passes("408", "409", "425")


async def test_t16_refused_client(failing: Failing) -> None:
    """A 401, and the empty 403 for an unknown host name, end the run and say what to type."""
    assert "--api-key" in str((await failing.ends("401", "auth")).error)
    failing.endpoint.requests.clear()
    assert "IP address" in str((await failing.ends("403-empty", "auth")).error)


async def test_t17_wrong_path(failing: Failing) -> None:
    """A 404 or 405 for the path ends the run, and the error names --base-url."""
    for mode in ("404-route", "405"):
        failing.endpoint.requests.clear()
        assert "--base-url" in str((await failing.ends(mode, "wrong_url")).error)


async def test_t18_redirect(failing: Failing) -> None:
    """A redirect to a login is not followed; it ends the run with its target."""
    assert "login.invalid" in str((await failing.ends("302", "wrong_url")).error)
