"""Keys from the environment: which endpoint and which fallback gets which key."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import run
from endpoint import Endpoint, Model
from inside import called
from running import ran
from selection import long

from vlmbatch.backends.keys import WITHOUT_KEY, key_of_fallback
from vlmbatch.backends.registry import OLLAMA_URL, open_backend
from vlmbatch.config import RunConfig
from vlmbatch.config.endpoint import FallbackSpec
from vlmbatch.endpoints.discovery import fallbacks
from vlmbatch.errors import ConfigError

Photos = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("all_from_the_start")
KEY = "sk-s3cret-of-the-user"
KEYS = {"OPENAI_API_KEY": KEY, "OPENROUTER_API_KEY": KEY, "OLLAMA_API_KEY": KEY, "TOGETHERAI_API_KEY": KEY}


@pytest.fixture
def other() -> Iterator[Endpoint]:
    """The fallback, a server that is not a provider."""
    with Endpoint(models={"big-vision": Model(vision=True)}) as running:
        yield running


def heard(endpoint: Endpoint) -> set[str | None]:
    """The Authorization headers that the endpoint has received."""
    assert endpoint.requests
    return {request.headers.get("authorization") for request in endpoint.requests}


@pytest.mark.parametrize("backend", ["openai", "vllm", "openrouter", "ollama", "litellm"])
def test_a_fallback_elsewhere_gets_no_key_of_the_environment(
    photos: Photos, endpoint: Endpoint, other: Endpoint, backend: str
) -> None:
    """A fallback at a URL that is not its provider's gets no key from the environment, and still answers."""
    photos(2)
    endpoint.script = lambda request: "content_filter"
    path, prefix = ("", "") if backend == "ollama" else ("/v1", "together_ai/" * (backend == "litellm"))
    done = run(
        *("run", "photos", "-b", "openai", "--base-url", f"{endpoint.url}/v1", "-m", "tiny-vision"),
        *("--fallback", f"{backend}:{prefix}big-vision@{other.url}{path}"),
        **KEYS,
    )
    assert done.returncode == 0, done.stderr
    assert len(other.questions) >= 2
    assert heard(other) <= {None, "Bearer none"}
    assert heard(endpoint) == {f"Bearer {KEY}"}  # which the user named


@pytest.mark.parametrize("backend", ["openai", "vllm", "ollama", long("litellm")])
def test_a_fallback_gets_the_key_that_is_named_with_it(
    photos: Photos, endpoint: Endpoint, backend: str
) -> None:
    """The variable after # gives a fallback its key, and is in no address of a request or a record."""
    photos(1)
    endpoint.script = lambda request: "content_filter"
    path, prefix = ("", "") if backend == "ollama" else ("/v1", "openai/" * (backend == "litellm"))
    with Endpoint(models={"big-vision": Model(vision=True)}, api_key="of-gateway") as other:
        done = run(
            *("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-m", "tiny-vision"),
            *("--fallback", f"{backend}:{prefix}big-vision@{other.url}{path}#GATEWAY_KEY"),
            GATEWAY_KEY="of-gateway",
            **KEYS,
        )
    assert done.returncode == 0, done.stderr
    assert heard(other) == {"Bearer of-gateway"}
    assert "GATEWAY_KEY" not in done.stdout


async def test_the_environment_may_name_the_place(
    photos: Photos, endpoint: Endpoint, other: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fallback at the server of OPENAI_BASE_URL gets OPENAI_API_KEY."""
    photos(1)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{other.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.script = lambda request: "content_filter"
    done = await ran(
        backend="ollama",
        base_url=endpoint.url,
        model="tiny-vision",
        fallback=f"openai:big-vision@{other.url}/v1",
    )
    assert [result.ok for result in done.results] == [True]
    assert heard(other) == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("fallback", "environ", "belongs"),
    [
        ("openai:m", {}, True),
        ("openai:m@https://api.openai.com/v1", {}, True),
        ("openai:m@https://eu.api.openai.com/v1", {}, True),
        ("vllm:m@https://api.openai.com/v1", {}, True),
        ("openrouter:m@https://openrouter.ai/api/v1", {}, True),
        ("ollama:m@https://ollama.com", {}, True),
        ("ollama:m@http://nas:11434", {"OLLAMA_HOST": "nas"}, True),
        ("ollama:m@http://nas:11434", {"OLLAMA_HOST": "nas:80"}, False),
        ("ollama:m@http://127.0.0.1:11434", {}, False),
        ("ollama:m@http://nas:11434", {"OPENAI_BASE_URL": "http://nas:11434"}, False),
        ("vllm:m@http://gpu:8000/v1", {"OPENAI_BASE_URL": "http://gpu:8000"}, True),
        ("vllm:m@http://gpu:8001/v1", {"OPENAI_BASE_URL": "http://gpu:8000"}, False),
        ("openai:m@https://gpu/v1", {"OPENAI_BASE_URL": "http://gpu/v1"}, False),
        ("openai:m@http://gpu/v1", {"OPENAI_BASE_URL": "http://gpu:99999"}, False),
        ("openai:m@http://api.openai.com/v1", {}, False),
        ("openai:m@https://api.openai.com:8443/v1", {}, False),
        ("openai:m@https://api.openai.com.evil.invalid/v1", {}, False),
        ("openai:m@https://evilapi.openai.com/v1", {}, False),
        ("openai:m@https://api.openai.com@evil.invalid/v1", {}, False),
        ("openai:m@https://openrouter.ai/api/v1", {}, False),
        ("openrouter:m@https://api.openai.com/v1", {}, False),
        ("litellm:m@https://api.openai.com/v1", {}, False),
        ("litellm:m", {}, True),
        ("lmstudio:m@http://127.0.0.1:1234/v1", {}, False),
    ],
)
def test_where_a_key_of_the_environment_belongs(
    fallback: str, environ: dict[str, str], belongs: bool
) -> None:
    """Scheme, host and port decide whether a key belongs to a fallback: the provider's, or the variable's."""
    key = key_of_fallback(FallbackSpec.of(fallback), {**KEYS, **environ})
    assert key == (None if belongs else WITHOUT_KEY)


def test_the_variable_of_a_fallback_must_be_set() -> None:
    """If the variable after # is not set, the error names it."""
    config = RunConfig.of("photos", fallback="openai:m@https://gateway.example/v1#GATEWAY_KEY")
    with pytest.raises(ConfigError, match="environment variable GATEWAY_KEY, which is not set"):
        fallbacks(config, {"GATEWAY_KEY": ""})
    (options,) = fallbacks(config, {"GATEWAY_KEY": "of-gateway"})
    assert options.endpoint.api_key == "of-gateway"
    assert options.endpoint.url == "https://gateway.example/v1"


@pytest.mark.parametrize("text", ["", "sk-s3cret", "s3cret", "A B", "1KEY", "KEY#MORE", "KEY\n"])
def test_the_text_after_the_hash_sign_must_be_a_variable(text: str) -> None:
    """Other text after # is an error that does not show it, since it may be the key itself."""
    with pytest.raises(ConfigError, match="after # write the name of the environment variable") as caught:
        RunConfig.of("photos", fallback=f"openai:m@https://gateway.example/v1#{text}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("backend", ["ollama", "vllm"])
def test_an_address_that_is_not_named_gets_no_key(backend: str) -> None:
    """The usual address of Ollama or vLLM gets no key from the environment, but the key of --api-key."""
    asked = {"backend": backend, "model": "m"}

    def headers(environ: dict[str, str], **options: object) -> dict[str, str]:
        backend = open_backend(RunConfig.of("photos", **asked, **options), {**KEYS, **environ})
        return dict(backend._transport._credentials.headers)  # type: ignore[attr-defined]

    variable, url = {
        "ollama": ("OLLAMA_HOST", OLLAMA_URL),
        "vllm": ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    }[backend]
    assert headers({}) == {}
    assert headers({}, api_key="typed") == {"Authorization": "Bearer typed"}
    assert headers({variable: url}) == headers({}, base_url=url) == {"Authorization": f"Bearer {KEY}"}


def test_a_fallback_that_needs_a_key_says_what_to_type(photos: Photos, endpoint: Endpoint) -> None:
    """A fallback that refuses a request without a key ends the run, and the message shows #VARIABLE."""
    photos(1)
    with Endpoint(models={"m": Model(vision=True)}, api_key=KEY) as other:
        done = run(
            *("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "-m", "tiny-vision"),
            *("--fallback", f"openai:m@{other.url}/v1"),
            OPENAI_API_KEY=KEY,
        )
    assert done.returncode == 2
    assert f"the fallback {other.url}/v1: " in done.stderr
    assert "write the variable of its key after its URL: @URL#VARIABLE" in done.stderr
    assert KEY not in done.stderr


def test_doctor_repeats_the_variable(photos: Photos, endpoint: Endpoint, other: Endpoint) -> None:
    """The run that doctor suggests keeps the variable of a fallback's key, and drops the password."""
    done = called(
        *("doctor", "-b", "ollama", "--base-url", endpoint.url, "-m", "tiny-vision"),
        *("--fallback", f"vllm:big-vision@{other.url.replace('//', '//me:s3cret@')}/v1#GATEWAY_KEY"),
        GATEWAY_KEY="of-gateway",
    )
    assert f"--fallback 'vllm:big-vision@{other.url}/v1#GATEWAY_KEY'" in done.stdout
    assert "s3cret" not in done.stdout
