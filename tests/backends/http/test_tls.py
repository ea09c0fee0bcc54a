"""Certificates: trusted endpoints, client certificates, and unusable files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from backend_contract import KINDS, question
from certificates import Certificates, make_certificates
from command import run
from endpoint import Endpoint

from vlmbatch.errors import ConfigError, FatalBackendError, TransientError, UnavailableError

Photos = Callable[..., Path]
WIRES = pytest.mark.parametrize("backend", ["ollama", "openai"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates in a folder."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@WIRES
async def test_a_private_ca(backend: str, files: Certificates) -> None:
    """With --ca-cert an endpoint with a private CA is trusted; without it nothing is sent there."""
    with Endpoint(tls=files.server()) as endpoint:
        async with KINDS[backend].open(endpoint.url) as opened:
            with pytest.raises(FatalBackendError, match="to trust a CA of your own, add --ca-cert") as caught:
                await opened.preflight()
        assert endpoint.requests == []
        async with KINDS[backend].open(endpoint.url, ca_cert=files.path("ca.pem")) as opened:
            found = await opened.preflight()
            assert (await opened.complete(question())).text
    assert caught.value.kind == "wrong_url"
    assert found.notes == ()


@WIRES
async def test_insecure_is_a_note(backend: str, files: Certificates) -> None:
    """With --insecure any certificate is accepted, and a note says so."""
    with Endpoint(tls=files.server()) as endpoint:
        async with KINDS[backend].open(endpoint.url, insecure=True) as opened:
            found = await opened.preflight()
    assert [note for note in found.notes if "is not checked (--insecure)" in note]


@pytest.mark.parametrize(
    "shown",
    [{"client_cert": "client.pem", "client_key": "client.key"}, {"client_cert": "both.pem"}],
    ids=["two files", "one file"],
)
@WIRES
async def test_a_certificate_is_shown(backend: str, shown: dict[str, str], files: Certificates) -> None:
    """An endpoint that requires a client certificate receives it."""
    given = {name: files.path(file) for name, file in shown.items()}
    with Endpoint(tls=files.server(wants_client=True)) as endpoint:
        async with KINDS[backend].open(endpoint.url, ca_cert=files.path("ca.pem"), **given) as opened:
            await opened.preflight()
            assert (await opened.complete(question())).text


@WIRES
async def test_a_missing_client_certificate(backend: str, files: Certificates) -> None:
    """If an endpoint closes the connection for lack of a client certificate, the error names the flag."""
    with Endpoint(tls=files.server(wants_client=True)) as endpoint:
        async with KINDS[backend].open(endpoint.url, ca_cert=files.path("ca.pem")) as opened:
            with pytest.raises(UnavailableError, match=r"lost.*name one with --client-cert"):
                await opened.preflight()
    with Endpoint(tls=files.server(), script=["rst"]) as endpoint:
        async with KINDS[backend].open(endpoint.url, ca_cert=files.path("ca.pem")) as opened:
            await opened.preflight()
            with pytest.raises(TransientError) as later:
                await opened.complete(question())
    assert "--client-cert" not in str(later.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ca_cert": "none.pem"}, r"--ca-cert \S*none.pem cannot be read: No such file"),
        ({"ca_cert": "."}, r"--ca-cert \S* cannot be read: Is a directory"),
        ({"ca_cert": "note.txt"}, r"--ca-cert \S*note.txt is not a PEM file"),
        ({"ca_cert": "broken.pem"}, r"--ca-cert \S*broken.pem contains no readable certificate"),
        ({"ca_cert": "client.key"}, r"--ca-cert \S*client.key contains no readable certificate"),
        ({"client_cert": "none.pem"}, r"--client-cert \S*none.pem cannot be read"),
        ({"client_cert": "client.pem"}, r"--client-cert: no certificate with its key .* --client-key"),
        ({"client_cert": "client.pem", "client_key": "none.key"}, r"--client-key cannot be read"),
        ({"client_cert": "client.pem", "client_key": "note.txt"}, r"--client-key is not a PEM file"),
        ({"client_cert": "client.pem", "client_key": "other.key"}, r"do not belong together"),
        ({"client_cert": "client.pem", "client_key": "locked.key"}, r"the key has a password"),
    ],
)
@WIRES
def test_unusable_files(backend: str, given: dict[str, str], told: str, files: Certificates) -> None:
    """A file that is missing, not PEM or the wrong one is an error before anything is sent."""
    options = {name: files.path(file) for name, file in given.items()}
    with pytest.raises(ConfigError, match=told):
        KINDS[backend].open("https://model.invalid", **options)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"client_key": "k.key"}, "--client-cert"),
        ({"insecure": True, "ca_cert": "ca.pem"}, "--insecure and --ca-cert are both set"),
    ],
)
def test_options_that_need_each_other(given: dict[str, object], told: str) -> None:
    """A key without its certificate, and a CA together with --insecure, are errors."""
    with pytest.raises(ConfigError, match=told):
        KINDS["openai"].open("https://model.invalid", **given)


def test_a_run_over_tls(photos: Photos, files: Certificates) -> None:
    """The whole command works over TLS; a key that was typed instead of its path is never shown."""
    photos(2)
    with Endpoint(tls=files.server(wants_client=True)) as endpoint:
        asked = ("run", "photos", "-b", "vllm", "--base-url", endpoint.url, "-m", "tiny-vision")
        shown = ("--ca-cert", files.path("ca.pem"), "--client-cert", files.path("client.pem"))
        done = run(*asked, *shown, VLMBATCH_CLIENT_KEY=files.path("client.key"))
        pasted = run(*asked, *shown, VLMBATCH_CLIENT_KEY="MIIEgeheim")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["endpoint"] for line in done.stdout.splitlines()] == [f"{endpoint.url}/v1"] * 2
    assert (pasted.returncode, "--client-key cannot be read" in pasted.stderr) == (2, True)
    assert "geheim" not in pasted.stdout + pasted.stderr
