"""The LiteLLM backend: its errors, its costs, and its silence on the network and the terminal."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_contract import LITELLM, asked, picture, question
from command import run
from endpoint import Endpoint, Model
from loop_clock import skipping
from running import ran

from vlmbatch.backends.litellm.backend import quiet_library
from vlmbatch.backends.litellm.deployments import deployments_in
from vlmbatch.backends.litellm.errors import BY_TEXT, CLASSES, to_backend_error
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    ConfigError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.records import Request

Photos = Callable[..., Path]
PRICED = "gpt-4o"
"""A model whose price LiteLLM knows."""


@pytest.fixture
def hosted() -> Any:
    """A provider on this machine with a model that has a price."""
    with Endpoint(
        speaks=("openai",), models={PRICED: Model(vision=True), "gpt-4": Model(vision=False)}
    ) as running:
        yield running


def asking(endpoint: Endpoint, model: str = PRICED) -> dict[str, Any]:
    """Options for this provider."""
    return {"backend": "litellm", "model": f"openai/{model}", "base_url": f"{endpoint.url}/v1"}


def test_every_exception_has_a_meaning() -> None:
    """Each class of litellm.exceptions has an explicit mapping, so that a new class fails here."""
    library = quiet_library()
    found = {
        name
        for name, value in vars(library.exceptions).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    mapped = {
        name
        for name in found
        if any(base.__name__ in {*CLASSES, *BY_TEXT} for base in getattr(library.exceptions, name).__mro__)
    }
    assert found - mapped == set()
    assert found - {*CLASSES, *BY_TEXT} <= {
        "CallerCredentialAuthenticationError",
        "CallerCredentialRateLimitError",
    }


@pytest.mark.parametrize(
    ("mode", "error", "kind"),
    [
        ("401", FatalBackendError, "auth"),
        ("404-model", FatalBackendError, "model_not_found"),
        ("429:7", UnavailableError, "busy"),
        ("insufficient_quota", FatalBackendError, "quota"),
        ("500", TransientError, "server_error"),
        ("503-busy", UnavailableError, "busy"),
        ("context:1", BadAnswerError, "context"),
        ("content_filter", RejectedError, "refused"),
        ("empty", BadAnswerError, "empty"),
        ("length", BadAnswerError, "truncated"),
        ("finish_abort", TransientError, "server_error"),
        ("finish_error", TransientError, "bad_response"),
        ("400", RejectedError, "rejected"),
        ("hang", TransientError, "timeout"),
        ("413", BadAnswerError, "body_too_large"),
    ],
)
async def test_failures_are_classified(mode: str, error: type[BackendError], kind: str) -> None:
    """A reply has the same meaning through LiteLLM as without it, and Retry-After is kept."""
    with LITELLM.endpoint(script=lambda request: mode) as endpoint, skipping(endpoint, 60):
        async with LITELLM.open(endpoint.url, timeout=60) as backend:
            await backend.preflight()
            with pytest.raises(error) as caught:
                await backend.complete(question())
    assert caught.value.kind == kind
    assert caught.value.retry_after == (7 if mode == "429:7" else None)
    assert len(endpoint.questions) == 1, "LiteLLM retried by itself"


async def test_unreachable() -> None:
    """A refused connection is an outage, not the fault of an image."""
    with LITELLM.endpoint() as endpoint:
        async with LITELLM.open(endpoint.url) as backend:
            await backend.preflight()
            endpoint.down()
            with pytest.raises(UnreachableError, match="no connection to"):
                await backend.complete(question())


def test_a_used_up_quota_is_not_busy() -> None:
    """LiteLLM's RateLimitError for a used-up account is a quota failure, since waiting would not help."""
    library = quiet_library()
    error = library.exceptions.RateLimitError("You exceeded it: insufficient_quota", "openai", "gpt-4o")
    assert to_backend_error(error, "openai", str).kind == "quota"


async def test_an_answer_has_its_cost(photos: Photos, hosted: Endpoint) -> None:
    """Records and summary have the cost by LiteLLM's prices; useless answers that were paid for count."""
    photos(3)
    hosted.script = ["empty"]
    done = await ran(**asking(hosted), concurrency=1, canary=False)
    costs = sorted(result.to_record()["cost"] for result in done.results)
    assert costs[0] > 0
    assert costs[2] > 1.5 * costs[1]
    assert done.summary is not None
    assert done.summary.cost == pytest.approx(sum(costs))


async def test_a_model_without_a_price_has_no_cost(photos: Photos) -> None:
    """A record has no `cost` if the price is unknown."""
    photos(1)
    with LITELLM.endpoint() as endpoint:
        done = await ran(**asking(endpoint, "tiny-vision"))
    assert "cost" not in done.results[0].to_record()
    assert done.summary is not None
    assert done.summary.cost is None


async def test_canaries_are_paid_for(photos: Photos, hosted: Endpoint) -> None:
    """The summary includes the cost of canaries, but no record does."""
    photos(1)
    done = await ran(**asking(hosted))
    assert hosted.canaries
    assert done.summary is not None
    assert (done.summary.cost or 0) > (done.results[0].cost or 0) > 0


@pytest.mark.slow
async def test_max_cost_ends_the_run(photos: Photos, hosted: Endpoint) -> None:
    """--max-cost ends the run with exit code 6 and keeps the answers; the next run does the rest."""
    photos(12)
    options = ("-b", "litellm", "-m", f"openai/{PRICED}", "--base-url", f"{hosted.url}/v1", "-o", "out.jsonl")
    done = run("run", "photos", *options, "-c", "1", "--max-cost", "0.002", "--no-canary")
    assert done.returncode == 6
    assert "--max-cost" in done.stderr
    records = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    spent = sum(record["cost"] for record in records)
    assert 0.002 <= spent < 0.002 + 2 * max(record["cost"] for record in records)
    again = await ran(**asking(hosted), output="out.jsonl")
    assert again.error is None
    assert all(result.ok for result in again.results)
    assert len(records) < len(Path("out.jsonl").read_text().splitlines()) == 12


async def test_max_cost_needs_prices(
    photos: Photos, hosted: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--max-cost without known prices is an error that names --prices."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    photos(3)
    unheard_of = asking(hosted, "unheard-of")
    for options in (unheard_of, {"backend": "openai", "model": "gpt-4o", "api_key": "k-123456"}):
        done = await ran(**options, max_cost=1)
        assert done.error is not None
        assert done.error.exit_code == 2
        assert "--prices" in str(done.error)


async def test_prices_from_a_file_count_for_any_backend(photos: Photos, endpoint: Endpoint) -> None:
    """--prices gives the cost of an endpoint that reports none; a model that is not in it is an error."""
    photos(2)
    Path("prices.json").write_text(
        json.dumps({"tiny-vision": {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}})
    )
    asked_for = {"backend": "ollama", "base_url": endpoint.url, "model": "tiny-vision", "canary": False}
    done = await ran(**asked_for, prices="prices.json")
    for result in done.results:
        assert result.completion is not None
        usage = result.completion.usage
        assert result.cost == pytest.approx(0.001 * usage.input_tokens + 0.01 * usage.output_tokens)
    stopped = await ran(**asked_for, prices="prices.json", max_cost=0.05, concurrency=1)
    assert len(stopped.results) == 1
    Path("prices.json").write_text("{}")
    assert isinstance((await ran(**asked_for, prices="prices.json")).error, ConfigError)


CONFIG = """
model_list:
  - model_name: caption
    litellm_params: {{model: openai/tiny-vision, api_base: {one}/v1, api_key: os.environ/ONE_KEY}}
  - model_name: caption
    litellm_params: {{model: openai/tiny-vision, api_base: {two}/v1, api_key: two-key, rpm: 5}}
  - model_name: other
    litellm_params: {{model: openai/nobody, api_base: {two}/v1}}
"""


@pytest.mark.usefixtures("all_from_the_start")
async def test_deployments_of_a_config_share_the_images(
    photos: Photos, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployments of a config.yaml share the images; each has its own key and its row."""
    monkeypatch.setenv("ONE_KEY", "one-key-123")
    photos(30)
    with Endpoint() as other:
        for each in (endpoint, other):
            each.hold_until(lambda: endpoint.questions and other.questions)
        Path("config.yaml").write_text(CONFIG.format(one=endpoint.url, two=other.url))
        done = await ran(backend="litellm", model="caption", litellm_config="config.yaml", concurrency=2)
        assert done.error is None
        assert len(done.ids) == 30
        assert {q.headers["authorization"] for q in endpoint.questions} == {"Bearer one-key-123"}
        assert {q.headers["authorization"] for q in other.questions} == {"Bearer two-key"}
    assert done.summary is not None
    assert [row.model for row in done.summary.endpoints] == ["caption", "caption"]


TWO_NAMES = ", ".join(f"{{model_name: {name}, litellm_params: {{model: m}}}}" for name in "ab")


@pytest.mark.parametrize(
    ("content", "model", "told"),
    [
        ("model_list: [", "x", "is not YAML"),
        ("general_settings: {}", "x", "has no model_list"),
        ("model_list: [{model_name: a}]", "a", "litellm_params"),
        ("model_list: [{model_name: a, litellm_params: {}}]", "a", "has no model in"),
        ("model_list: [{model_name: caption, litellm_params: {model: m}}]", "capton", "nearest: caption"),
        (
            "model_list: [{model_name: a, litellm_params: {model: m, api_key: os.environ/NOT_SET}}]",
            "a",
            "NOT_SET",
        ),
        (f"model_list: [{TWO_NAMES}]", None, "name one with --model"),
    ],
)
def test_a_config_that_cannot_be_used(tmp_path: Path, content: str, model: str | None, told: str) -> None:
    """Each fault of a config.yaml is a ConfigError that names the file."""
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=told) as caught:
        deployments_in(str(file), model, {})
    assert str(file) in str(caught.value)


def test_a_config_that_is_not_there(photos: Photos) -> None:
    """A missing config.yaml is exit code 2, and so is one for another backend."""
    photos(1)
    done = run("run", "photos", "-b", "litellm", "-m", "a", "--litellm-config", "none.yaml")
    assert (done.returncode, "none.yaml" in done.stderr) == (2, True)
    done = run("run", "photos", "-b", "ollama", "-m", "a", "--litellm-config", "none.yaml")
    assert (done.returncode, "--backend litellm" in done.stderr) == (2, True)


WITHOUT = "import sys; sys.modules['litellm'] = None; import vlmbatch.__main__ as m; m.main()"
"""The command without the litellm package."""


@pytest.mark.parametrize(
    "options", [("-b", "litellm", "-m", "gpt-4o"), ("-b", "vllm", "-m", "m", "--fallback", "litellm:gpt-4o")]
)
def test_an_extra_that_is_not_installed(photos: Photos, options: tuple[str, ...]) -> None:
    """A missing package is exit code 2 with the command that installs it, even for a fallback."""
    photos(1)
    done = run("run", "photos", *options, "--give-up-after", "0", command=(sys.executable, "-c", WITHOUT))
    assert done.returncode == 2
    assert 'pip install "vlmbatch[litellm]"' in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "--model"),
        ({"model": "gpt-4o"}, "OPENAI_API_KEY"),
        ({"model": "anthropic/claude-3-7-sonnet-20250219"}, "ANTHROPIC_API_KEY"),
        ({"model": "no-such-thing"}, "provider/model"),
        ({"model": "gpt-3.5-turbo", "api_key": "k-123456"}, "cannot see images"),
        ({"model": "gpt-4o", "insecure": True}, "SSL_CERT_FILE"),
    ],
)
async def test_a_mistake_is_reported_before_any_request(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], told: str
) -> None:
    """No model, no key, no such provider, no vision: each is exit code 2 with the flag or variable to set."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    photos(1)
    done = await ran(backend="litellm", **options)
    assert done.error is not None
    assert done.error.exit_code == 2
    assert told in str(done.error)


SPY = """
import sys
def spy(event, args):
    if event == "socket.connect" and args[1][0] not in ("127.0.0.1", "::1"):
        print("CONNECTED", args[1], file=sys.stderr)
    if event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", "localhost", "::1", None):
        print("LOOKED UP", args[0], file=sys.stderr)
sys.addaudithook(spy)
import vlmbatch.__main__ as m
m.main()
"""


@pytest.mark.slow
def test_no_other_host_and_no_output(photos: Photos, hosted: Endpoint) -> None:
    """Standard output has records only, and no other host is looked up or contacted, not even for prices."""
    photos(4)
    options = ("-b", "litellm", "-m", f"openai/{PRICED}", "--base-url", f"{hosted.url}/v1")
    done = run("run", "photos", *options, "--api-key", "key-12345678", command=(sys.executable, "-c", SPY))
    assert done.returncode == 0
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok"] * 4
    told = done.stderr.splitlines()
    assert len(told) == 2, done.stderr
    assert told[0].startswith("using openai/gpt-4o")
    assert "for $" in told[1]
    assert "key-12345678" not in done.stderr + done.stdout


async def test_system_message_and_headers_go_along() -> None:
    """The system message and the headers of --header arrive at the provider."""
    with LITELLM.endpoint() as endpoint:
        async with LITELLM.open(endpoint.url, header=("X-Team: vision",)) as backend:
            await backend.preflight()
            await backend.complete(Request(images=(picture(),), prompt="What?", system="Be brief."))
    (seen,) = endpoint.questions
    assert seen.headers["x-team"] == "vision"
    assert asked(seen)["system"] == "Be brief."


async def test_as_a_fallback(
    photos: Photos, endpoint: Endpoint, hosted: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--fallback litellm:...@URL` answers an image that the first endpoint refuses, with its cost."""
    monkeypatch.setenv("OPENAI_API_KEY", "the-fallback-key")
    photos(3)
    endpoint.script = ["content_filter"]
    done = await ran(
        backend="ollama",
        base_url=endpoint.url,
        model="tiny-vision",
        fallback=f"litellm:openai/{PRICED}@{hosted.url}/v1",
        concurrency=1,
    )
    (fallen,) = [result for result in done.results if result.fallback]
    assert (fallen.endpoint.backend, fallen.ok, (fallen.cost or 0) > 0) == ("litellm", True, True)


@pytest.mark.parametrize(
    "told", ["geheim-0123456789", "GEHEIM-0123456789", "geheim-012****", "Z2VoZWltLTAxMjM0NTY3ODk="]
)
async def test_a_key_of_the_environment_stands_in_no_error(
    monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """A key from the environment is masked in an error, in whatever form a refusal repeats it."""
    monkeypatch.setenv("OPENAI_API_KEY", "geheim-0123456789")
    library = quiet_library()
    with LITELLM.endpoint() as endpoint:
        async with LITELLM.open(endpoint.url) as backend:
            await backend.preflight()
            error = library.exceptions.AuthenticationError(f"no such key: {told}", "openai", "m")
            monkeypatch.setattr(library, "acompletion", _raising(error))
            with pytest.raises(FatalBackendError) as caught:
                await backend.complete(question())
    assert "geheim" not in str(caught.value).lower()
    assert "[key]" in str(caught.value)
    assert told not in str(caught.value)


def _raising(error: Exception) -> Callable[..., Any]:
    async def ask(**_: object) -> None:
        raise error

    return ask
