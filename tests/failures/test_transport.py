"""Failures on the way to the endpoint, by their number in docs/failures.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint import Endpoint
from failing import Failing

from vlmbatch.errors import ConfigError, FatalBackendError, UnreachableError
from vlmbatch.events import EndpointPaused, RetryScheduled

Photos = Callable[..., Path]


@pytest.fixture(params=["ollama", "vllm"])
def failing(request: pytest.FixtureRequest, photos: Photos, endpoint: Endpoint) -> Failing:
    """Runs over six photos, on both wires."""
    return Failing(photos, endpoint, request.param)


async def test_t1_nobody_listens(failing: Failing) -> None:
    """A closed port at the start ends the run with exit code 4 and says where it looked."""
    failing.endpoint.down()
    done = await failing.run(give_up_after=0.1)
    assert isinstance(done.error, UnreachableError)
    assert "Connection refused" in str(done.error)
    assert done.results == []


async def test_t1_nobody_listens_in_the_middle(failing: Failing) -> None:
    """In the middle of a run it is a pause: nothing is recorded as failed."""
    done = await failing.passes("down:0.2", attempts=1)
    assert len(done.of(EndpointPaused)) == 1


async def test_t3_no_url(failing: Failing) -> None:
    """What is no URL, or has no valid port, is refused before anything is asked."""
    for url in ("localhost:11434", "http://127.0.0.1:99999"):
        with pytest.raises(ConfigError, match="is not a URL"):
            await failing.run(base_url=url)


async def test_t5_kept_connection_that_was_closed(failing: Failing) -> None:
    """A reset of a kept connection is asked again at once and costs no attempt and no wait."""
    failing.endpoint.script = ["ok", "ok", "rst"]
    done = await failing.run(concurrency=1)
    assert [r.attempts for r in done.results] == [1] * 6
    assert done.of(RetryScheduled) == []
    assert len(failing.endpoint.questions) == 7


async def test_t6_reset_and_short_body(failing: Failing) -> None:
    """A reset and a body that is cut short are asked again."""
    await failing.passes("shortbody", "rst", "closenoresp", "shortbody")


async def test_t7_hang(failing: Failing) -> None:
    """A request that hangs ends at --timeout and is asked again; one that always hangs fails alone."""
    failing.options["timeout"] = 0.6
    await failing.passes("hang", attempts=2)
    failing.endpoint.requests.clear()
    await failing.fails_alone("hang", "timeout", requests=4)


async def test_t7_all_hang(failing: Failing) -> None:
    """An endpoint on which everything hangs is unavailable: exit code 4, and nothing is recorded."""
    await failing.gives_up("hang", timeout=0.1)


async def test_t8_trickle(failing: Failing) -> None:
    """A byte now and then does not hold an attempt longer than --timeout."""
    failing.options["timeout"] = 0.6
    await failing.passes("trickle:0.01", attempts=2)


async def test_t10_proxies_do_not_catch_loopback(failing: Failing) -> None:
    """With HTTP_PROXY set, an endpoint on this machine is asked directly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        await failing.passes(attempts=1)


async def test_t11_gateway_pages(failing: Failing) -> None:
    """HTML with 502 or 504 from a proxy is no answer, and is asked again."""
    await failing.passes("html502", "html504")


async def test_t12_body_too_large(failing: Failing) -> None:
    """413 is asked again with a smaller picture, and the record says so; where that never helps it fails."""
    done = await failing.passes("413", attempts=2)
    assert any("smaller picture" in w for r in done.results for w in r.warnings)
    failing.endpoint.script = lambda request: "413"
    done = await failing.run()
    assert [(r.failure.kind, r.attempts) for r in done.results if r.failure] == [("body_too_large", 3)] * 6


async def test_t12_all_bodies_too_large(failing: Failing, photos: Photos) -> None:
    """Where a proxy takes none of ten pictures, the set-up is wrong: exit code 2 with what to do."""
    photos(12)
    failing.endpoint.script = lambda request: "413"
    done = await failing.run()
    assert isinstance(done.error, FatalBackendError)
    assert "client_max_body_size" in str(done.error)
    assert done.results == []


async def test_t13_login_page(failing: Failing) -> None:
    """A page of HTML with status 200 is no answer, and is asked again."""
    await failing.passes("html200", attempts=2)


async def test_t14_retry_after(failing: Failing) -> None:
    """Whatever form Retry-After has, the run pauses or the image waits, and all are answered."""
    for form in ("429:1", "429-ms:900", "429:Wed, 21 Oct 2015 07:28:00 GMT", "429:nan", "429:-5", "429"):
        failing.endpoint.requests.clear()
        await failing.passes(form, attempts=1)


async def test_t15_passing_statuses(failing: Failing) -> None:
    """408, 409 and 425 are asked again."""
    await failing.passes("408", "409", "425")


async def test_t16_refused_client(failing: Failing) -> None:
    """401, and the 403 without a text of an unknown host name, end the run with what to type."""
    assert "--api-key" in str((await failing.ends("401", "auth")).error)
    failing.endpoint.requests.clear()
    assert "IP address" in str((await failing.ends("403-empty", "auth")).error)


async def test_t17_wrong_path(failing: Failing) -> None:
    """404 and 405 for the path end the run, which asks about --base-url."""
    for mode in ("404-route", "405"):
        failing.endpoint.requests.clear()
        assert "--base-url" in str((await failing.ends(mode, "wrong_url")).error)


async def test_t18_redirect(failing: Failing) -> None:
    """A redirect to a login is not followed, and ends the run with its goal."""
    assert "login.invalid" in str((await failing.ends("302", "wrong_url")).error)
