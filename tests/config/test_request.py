"""Headers and extra arguments: which are accepted, what is sent, and that no secret appears elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import KINDS, Kind, each_kind, question
from command import run
from endpoint import Endpoint

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError
from vlmbatch.pipeline.fingerprint import answer_settings, run_digest
from vlmbatch.records import Endpoint as Found

Photos = Callable[..., Path]
SECRET = "s3cret-value"


@each_kind
async def test_headers_go_with_every_request(kind: Kind) -> None:
    """Every request carries each header and the key, and no message or repr shows a header's value."""
    with kind.endpoint(api_key="some-key-123") as endpoint:
        given = [f"X-Team: {SECRET}\n", "X-Empty:"]  # a line of a file ends in a line break
        async with kind.open(endpoint.url, api_key="some-key-123", header=given) as backend:
            found = await backend.preflight()
            await backend.complete(question())
    assert {(r.headers["x-team"], r.headers["x-empty"]) for r in endpoint.requests} == {(SECRET, "")}
    assert SECRET not in f"{found} {backend.place} {RunConfig.of('p', header=given)!r}"


async def test_an_authorization_header_replaces_the_key(endpoint: Endpoint) -> None:
    """A --header Authorization replaces the one made from the key or the URL."""
    for url in (endpoint.url, endpoint.url.replace("//", "//me:pa55word@")):
        given = {"api_key": "some-key-123", "header": ["authorization: Token abc123"]}
        async with KINDS["openai"].open(url, **given) as backend:
            await backend.preflight()
    assert {r.headers["authorization"] for r in endpoint.requests} == {"Token abc123"}


@pytest.mark.parametrize(
    "typed",
    [
        SECRET,
        f": {SECRET}",
        f"X Team: {SECRET}",
        f"X-T\xe9am: {SECRET}",
        f"X-Team: {SECRET}\r\nHost: elsewhere",
        f"X-Team: {SECRET}\x00",
        f"X-Team: {SECRET}\xe9",
        f"Content-Type: {SECRET}",
        f"content-length: {SECRET}",
        f"HOST: {SECRET}",
        f"Transfer-Encoding: {SECRET}",
    ],
)
def test_an_invalid_header_is_refused(typed: str) -> None:
    """A header that cannot be sent or would break the request is refused, and the message hides its value."""
    with pytest.raises(ConfigError, match="--header") as caught:
        RunConfig.of("photos", header=[typed])
    assert SECRET not in str(caught.value)


def test_headers_from_variable_and_file(photos: Photos, endpoint: Endpoint) -> None:
    """VLMBATCH_HEADER has one header per line, a settings file a list; a bad one exits 2 and stays hidden."""
    photos(1)
    asked = ("run", "photos", "-b", "openai", "--base-url", endpoint.url, "-m", "tiny-vision")
    done = run(*asked, VLMBATCH_HEADER=f"X-Team: two words\n\nX-Key: {SECRET}\n")
    assert done.returncode == 0, done.stderr
    Path("mine.toml").write_text(f'header = ["X-Team: two words", "X-Key: {SECRET}"]')
    assert run(*asked, "--config", "mine.toml").returncode == 0
    assert {(r.headers["x-team"], r.headers["x-key"]) for r in endpoint.requests} == {("two words", SECRET)}
    wrong = run(*asked, "--header", f"X Key: {SECRET}")
    assert (wrong.returncode, SECRET in wrong.stderr) == (2, False)
    assert "--header takes a name, a colon and a value" in " ".join(wrong.stderr.split())


async def test_extra_arguments_are_sent(endpoint: Endpoint) -> None:
    """--extra-body and --mm-processor-kwargs are at the top level of each request and override defaults."""
    more = {"extra_body": '{"top_k": 20, "temperature": 0.5}', "mm_processor_kwargs": {"max_pixels": 12544}}
    async with KINDS["vllm"].open(endpoint.url, **more) as backend:
        await backend.preflight()
        await backend.complete(question())
    body = endpoint.questions[0].body
    assert (body["top_k"], body["temperature"]) == (20, 0.5)
    assert body["mm_processor_kwargs"] == {"max_pixels": 12544}


@pytest.mark.parametrize("text", ["{", "[1]", "top_k=20", '"x"', "NaN", "{" * 100_000])
@pytest.mark.parametrize("option", ["extra_body", "mm_processor_kwargs"])
def test_a_value_that_is_not_an_object_is_refused(option: str, text: str) -> None:
    """A value that is not a JSON object is refused, and the message names the flag."""
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}: the value is "):
        RunConfig.of("photos", **{option: text})


@pytest.mark.parametrize("name", ["model", "messages", "stream"])
def test_model_messages_and_stream_cannot_be_replaced(name: str) -> None:
    """--extra-body cannot replace the arguments that vlmbatch sets itself."""
    with pytest.raises(ConfigError, match=f"--extra-body cannot replace '{name}'"):
        RunConfig.of("photos", extra_body={name: 1})


@pytest.mark.parametrize("backend", ["ollama", "llama-cpp", "auto"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("extra_body", '{"top_k": 1}'), ("mm_processor_kwargs", '{"a": 1}'), ("file_urls", True)],
)
def test_only_openais_format_takes_extra_arguments(backend: str, option: str, value: object) -> None:
    """An extra argument is an error with a backend that would drop it; the message names an alternative."""
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} is for servers") as caught:
        Kind(backend=backend, wire="", name="").open(None, model=None, **{option: value})
    assert ("--option" in str(caught.value)) == (option == "extra_body")


@pytest.mark.parametrize("backend", ["openai", "openrouter"])
def test_no_path_goes_to_a_hosted_server(backend: str) -> None:
    """--file-urls is refused for a hosted server, which shares no disk with this machine."""
    with pytest.raises(ConfigError, match="--file-urls is for a server on the same disk"):
        KINDS[backend].open(None, api_key="some-key-123", file_urls=True)


def test_extra_arguments_change_the_run_digest() -> None:
    """Arguments that change answers change the run digest, also by their order, and older digests stay."""
    found = Found(backend="vllm", url="http://a", model="m")

    def digest(**options: Any) -> str:
        return run_digest(answer_settings(RunConfig.of("p", **options), found, "p"))

    plain = digest()
    assert digest(header=["X-A: b"], ca_cert="ca.pem", file_urls=True) == plain
    assert digest(extra_body='{"b":1,"a":2}') == digest(extra_body={"b": 1, "a": 2}) != plain
    assert digest(extra_body={"a": 2, "b": 1}) != digest(extra_body={"b": 1, "a": 2})
    assert digest(mm_processor_kwargs={"max_pixels": 1}) != digest(extra_body={"max_pixels": 1})
    assert "extra_body" not in json.dumps(answer_settings(RunConfig.of("p"), found, "p"))
