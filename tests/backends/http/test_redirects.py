"""Redirects: which are followed, and that no key goes to another host."""

from pathlib import Path

import pytest
from backend_contract import KINDS, question
from certificates import make_certificates
from replying import OLLAMA, OPENAI, Raw, replying

from vlmbatch.backends.http.redirects import MOST_HOPS, target_of
from vlmbatch.errors import FatalBackendError

KEY = "some-key-123"


def redirect(status: int, target: str) -> Raw:
    return Raw(body=b"moved", status=status, kind="text/plain", headers=(("Location", target),))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/chat", "http://h:8000/v2/chat?a=1"),
        ("/v2/chat?b=2", "http://h:8000/v2/chat?b=2"),
        ("completions/", "http://h:8000/v1/chat/completions/?a=1"),
        ("//h:8000/x#top", "http://h:8000/x?a=1"),
        ("http://H:8000/x", "http://H:8000/x?a=1"),
        ("https://h/x", "https://h/x?a=1"),
        ("https://h:8443/x", "https://h:8443/x?a=1"),
        ("http://h/x", None),
        ("http://h:8001/x", None),
        ("http://other:8000/x", None),
        ("https://h.evil.example/x", None),
        ("http://me:pw@h:8000/x", None),
        ("ftp://h:8000/x", None),
        ("http://[::1", None),
        ("http://h:port/", None),
        ("", None),
        (None, None),
    ],
)
def test_a_redirect_stays_at_its_host(location: str | None, target: str | None) -> None:
    """The request is sent again only to the same host and port, or to https on the same host."""
    url = "http://h:8000/v1/chat/completions?a=1"
    for status in (307, 308):
        assert target_of(status, location, url) == target
    for status in (200, 300, 301, 302, 303, 304, 400):
        assert target_of(status, location, url) is None


def test_a_redirect_never_leaves_https() -> None:
    """A request over https is not sent again over http, on any port."""
    assert target_of(307, "http://h/x", "https://h/v1") is None
    assert target_of(307, "http://h:443/x", "https://h/v1") is None
    assert target_of(307, "https://h:443/x", "https://h/v1") == "https://h:443/x"


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(("name", "path"), [("openai", OPENAI), ("ollama", OLLAMA)])
async def test_a_redirect_to_the_same_host_is_followed(name: str, path: str, status: int) -> None:
    """A redirect that keeps the request is followed with the same body and key, to any path of the host."""

    def reply(at: str, text: str) -> Raw | None:
        # the new place has the usual replies of the old one
        return redirect(status, f"{path}?new=1") if at == path and len(server.asked) == 1 else None

    with replying(reply) as server:
        async with KINDS[name].open(server.url, model="tiny", api_key=KEY) as backend:
            done = await backend.complete(question())
    assert done.text == "A grey cat."
    first, second = server.asked
    assert (first.path, second.path) == (path, f"{path}?new=1")
    assert (first.method, first.body) == (second.method, second.body)
    assert first.headers["authorization"] == second.headers["authorization"] == f"Bearer {KEY}"


async def test_several_redirects_are_followed() -> None:
    """A question goes through five redirects, always as a POST."""

    def reply(at: str, text: str) -> Raw | None:
        return redirect(307, f"{OPENAI}?hop={len(server.asked)}") if len(server.asked) < 6 else None

    with replying(reply) as server:
        async with KINDS["openai"].open(server.url, model="tiny") as backend:
            assert (await backend.complete(question())).text == "A grey cat."
    hops = [asked.path.partition("?")[2] for asked in server.asked]
    assert hops == ["", *(f"hop={n}" for n in range(1, 6))]
    assert {asked.method for asked in server.asked} == {"POST"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_request_goes_to_another_host(status: int) -> None:
    """A redirect to another host, or one that drops the question, is an error with its target."""
    with (
        replying(lambda path, text: None) as other,
        replying(lambda path, text: redirect(status, f"{other.url}{OPENAI}")) as server,
    ):
        async with KINDS["openai"].open(server.url, model="tiny", api_key=KEY) as backend:
            with pytest.raises(FatalBackendError, match=f"redirects: to {other.url}{OPENAI}") as caught:
                await backend.complete(question())
    assert caught.value.kind == "wrong_url"
    assert other.asked == []


async def test_an_endless_redirect_ends() -> None:
    """A redirect in a circle ends after a few requests, as an error."""
    with replying(lambda path, text: redirect(307, OPENAI)) as server:
        async with KINDS["openai"].open(server.url, model="tiny") as backend:
            with pytest.raises(FatalBackendError, match="the endpoint redirects"):
                await backend.complete(question())
    assert len(server.asked) == MOST_HOPS + 1


async def test_a_redirect_to_https_is_followed_and_back_is_not(tmp_path: Path) -> None:
    """From http a question goes on to https on the same host; from https it never goes to http."""
    made = make_certificates(tmp_path)
    with (
        replying(lambda path, text: None, made.server()) as secure,
        replying(lambda path, text: redirect(308, f"{secure.url}{OPENAI}")) as plain,
    ):
        given = {"model": "tiny", "api_key": KEY, "ca_cert": made.path("ca.pem")}
        async with KINDS["openai"].open(plain.url, **given) as backend:
            assert (await backend.complete(question())).text == "A grey cat."
        assert secure.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    with (
        replying(lambda path, text: None) as plain,
        replying(lambda path, text: redirect(308, f"{plain.url}{OPENAI}"), made.server()) as secure,
    ):
        async with KINDS["openai"].open(secure.url, **given) as backend:
            with pytest.raises(FatalBackendError, match="the endpoint redirects"):
                await backend.complete(question())
        assert plain.asked == []
