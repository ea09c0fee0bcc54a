"""The start of a run: what the real command imports and loads before its first request."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from command import COMMAND, run
from endpoint import Endpoint
from selection import long

Photos = Callable[..., Path]
UNUSED = ("pydantic", "ollama", "httpx", "tomllib", "vlmbatch.cli.usage_errors")
"""Modules that a plain run does not need."""
LOOK = f"""
import gc, json, ssl, sys
from vlmbatch import cli
try: cli.main()
except SystemExit as end: code = end.code
collects = gc.isenabled()
gc.unfreeze()
contexts = [each for each in gc.get_objects() if isinstance(each, ssl.SSLContext)]
certificates = [each.cert_store_stats()["x509"] for each in contexts]
imported = [name for name in {UNUSED!r} if name in sys.modules]
print(json.dumps([code, imported, certificates, collects]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates in a folder."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_a_plain_run_loads_only_what_it_uses(photos: Photos, endpoint: Endpoint, files: Certificates) -> None:
    """A run over HTTP imports no pydantic and loads no certificate; the garbage collector is on again."""
    photos(1)
    asked = ("run", "photos", "-b", "vllm", "--base-url", f"{endpoint.url}/v1", "-m", "tiny-vision")
    others = ("-o", "o.jsonl", "--limit", "1", "--include", "*.jpg", "--timeout", "60")
    looking = (COMMAND[0], "-c", LOOK)
    done = run(*asked, *others, command=looking, SSL_CERT_FILE=files.path("ca.pem"))
    assert done.stdout, done.stderr
    code, imported, certificates, collects = json.loads(done.stdout.splitlines()[-1])
    assert (code, imported, collects) == (0, [], True), done.stderr
    assert len(certificates) >= 2  # aiohttp makes them
    assert set(certificates) == {0}


def test_a_run_over_tls_trusts_the_certificates_of_the_system(photos: Photos, files: Certificates) -> None:
    """Without an option about certificates the command trusts those of the system, and no other."""
    photos(1)
    with Endpoint(tls=files.server()) as endpoint:
        asked = ("run", "photos", "-b", "vllm", "--base-url", endpoint.url, "-m", "tiny-vision")
        foreign = run(*asked, SSL_CERT_FILE="/nowhere")
        assert foreign.returncode != 0
        assert "add --ca-cert FILE" in foreign.stderr
        assert endpoint.requests == []
        trusted = run(*asked, SSL_CERT_FILE=files.path("ca.pem"))
    assert trusted.returncode == 0, trusted.stderr
    assert json.loads(trusted.stdout)["status"] == "ok"


@pytest.mark.parametrize("chosen", [("-b", "litellm"), long(("--fallback", "litellm:gpt-4o"))])
def test_litellm_finds_the_certificates_of_aiohttp(
    chosen: tuple[str, str], photos: Photos, files: Certificates
) -> None:
    """With LiteLLM, which uses the SSL contexts of aiohttp, these trust the certificates of the system."""
    photos(1)
    looking = (COMMAND[0], "-c", LOOK)
    asked = ("run", "photos", *chosen, "--base-url", "http://127.0.0.1:9", "--give-up-after", "0")
    done = run(*asked, command=looking, SSL_CERT_FILE=files.path("ca.pem"), OPENAI_API_KEY="x")
    _, _, certificates, _ = json.loads(done.stdout.splitlines()[-1])
    assert 1 in certificates
