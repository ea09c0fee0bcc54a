"""Headers and further arguments: what is taken, what goes out, and what is kept out of everything else."""

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
    """Each header is sent with every request, beside the key, and its value stands in nothing people see."""
    with kind.endpoint(api_key="some-key-123") as endpoint:
        given = [f"X-Team: {SECRET}\n", "X-Empty:"]  # a file ends in a line break
        async with kind.open(endpoint.url, api_key="some-key-123", header=given) as backend:
            found = await backend.preflight()
            await backend.complete(question())
    assert {(r.headers["x-team"], r.headers["x-empty"]) for r in endpoint.requests} == {(SECRET, "")}
    assert SECRET not in f"{found} {backend.place} {RunConfig.of('p', header=given)!r}"


async def test_authorization_of_ones_own(endpoint: Endpoint) -> None:
    """A header Authorization comes in place of the key's."""
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
def test_what_is_no_header(typed: str) -> None:
    """What cannot be sent, or would break the request, is refused with its name at most."""
    with pytest.raises(ConfigError, match="--header") as caught:
        RunConfig.of("photos", header=[typed])
    assert SECRET not in str(caught.value)


def test_headers_from_variable_and_file(photos: Photos, endpoint: Endpoint) -> None:
    """VLMBATCH_HEADER holds one a line, vlmbatch.toml a list; a wrong one ends with 2 and is not repeated."""
    photos(1)
    asked = ("run", "photos", "-b", "openai", "--base-url", endpoint.url, "-m", "tiny-vision")
    done = run(*asked, VLMBATCH_HEADER=f"X-Team: two words\n\nX-Key: {SECRET}\n")
    assert done.returncode == 0, done.stderr
    Path("vlmbatch.toml").write_text(f'header = ["X-Team: two words", "X-Key: {SECRET}"]')
    assert run(*asked).returncode == 0
    assert {(r.headers["x-team"], r.headers["x-key"]) for r in endpoint.requests} == {("two words", SECRET)}
    wrong = run(*asked, "--header", f"X Key: {SECRET}")
    assert (wrong.returncode, SECRET in wrong.stderr) == (2, False)
    assert "--header takes a name, a colon and a value" in " ".join(wrong.stderr.split())


async def test_further_arguments(endpoint: Endpoint) -> None:
    """--extra-body and --mm-processor-kwargs stand at the top of each question, over what is there."""
    more = {"extra_body": '{"top_k": 20, "temperature": 0.5}', "mm_processor_kwargs": {"max_pixels": 12544}}
    async with KINDS["vllm"].open(endpoint.url, **more) as backend:
        await backend.preflight()
        await backend.complete(question())
    body = endpoint.questions[0].body
    assert (body["top_k"], body["temperature"]) == (20, 0.5)
    assert body["mm_processor_kwargs"] == {"max_pixels": 12544}


@pytest.mark.parametrize("text", ["{", "[1]", "top_k=20", '"x"', "NaN", "{" * 100_000])
@pytest.mark.parametrize("option", ["extra_body", "mm_processor_kwargs"])
def test_what_is_no_object(option: str, text: str) -> None:
    """What is no JSON object is refused by the flag's name."""
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}: that is "):
        RunConfig.of("photos", **{option: text})


@pytest.mark.parametrize("name", ["model", "messages", "stream"])
def test_the_question_cannot_be_replaced(name: str) -> None:
    """--extra-body leaves the question itself alone."""
    with pytest.raises(ConfigError, match=f"--extra-body cannot replace '{name}'"):
        RunConfig.of("photos", extra_body={name: 1})


@pytest.mark.parametrize("backend", ["ollama", "llama-cpp", "auto"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("extra_body", '{"top_k": 1}'), ("mm_processor_kwargs", '{"a": 1}'), ("file_urls", True)],
)
def test_only_openais_wire_has_a_place_for_it(backend: str, option: str, value: object) -> None:
    """With an engine that would drop it, an argument is an error, which names what would do."""
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} is for servers") as caught:
        Kind(backend=backend, wire="", name="").open(None, model=None, **{option: value})
    assert ("--option" in str(caught.value)) == (option == "extra_body")


@pytest.mark.parametrize("backend", ["openai", "openrouter"])
def test_no_path_goes_to_a_hosted_server(backend: str) -> None:
    """A hosted server shares no disk, and is told no path of this one."""
    with pytest.raises(ConfigError, match="--file-urls is for a server on the same disk"):
        KINDS[backend].open(None, api_key="some-key-123", file_urls=True)


def test_arguments_name_a_run() -> None:
    """Arguments that change answers make another run, however typed, and older digests stay."""
    found = Found(backend="vllm", url="http://a", model="m")

    def digest(**options: Any) -> str:
        return run_digest(answer_settings(RunConfig.of("p", **options), found, "p"))

    plain = digest()
    assert digest(header=["X-A: b"], ca_cert="ca.pem", file_urls=True) == plain
    assert digest(extra_body='{"b": 1, "a": 2}') == digest(extra_body={"a": 2, "b": 1}) != plain
    assert digest(mm_processor_kwargs={"max_pixels": 1}) != digest(extra_body={"max_pixels": 1})
    assert "extra_body" not in json.dumps(answer_settings(RunConfig.of("p"), found, "p"))
