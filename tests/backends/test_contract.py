"""The contract of all backends with a healthy endpoint: the requests and the completions."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from backend_contract import (
    KINDS,
    LITELLM,
    Kind,
    asked,
    each_asker,
    each_kind,
    picture,
    question,
    sent_sha256,
)
from endpoint import Endpoint, Model

from vlmbatch.errors import BackendError, FatalBackendError
from vlmbatch.protocols import Backend
from vlmbatch.records import Request

LLAMA_CPP = pytest.param(
    Kind(backend="llama-cpp", wire="none", name="llama-cpp"), id="llama-cpp", marks=pytest.mark.slow
)
every_kind = pytest.mark.parametrize(
    "kind",
    [*(pytest.param(k, id=i) for i, k in KINDS.items()), pytest.param(LITELLM, id="litellm"), LLAMA_CPP],
)


@asynccontextmanager
async def ready(kind: Kind) -> AsyncIterator[Backend]:
    """A backend of this kind after its preflight, with a healthy endpoint."""
    if kind.wire == "none":
        async with kind.open(None, model=None) as backend:
            await backend.preflight()
            yield backend
        return
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            yield backend


@each_kind
async def test_preflight_names_the_endpoint(kind: Kind) -> None:
    """Preflight returns the backend, the model and the URL of the endpoint."""
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            found = await backend.preflight()
    assert (found.backend, found.model) == (kind.name, "tiny-vision")
    assert found.url == endpoint.url + ("/v1" if kind.wire == "openai" else "")
    assert found.context == 8192


@every_kind
async def test_answer_is_whole(kind: Kind) -> None:
    """A completion has its text, the model's name, the finish reason, and the token counts."""
    async with ready(kind) as backend:
        done = await backend.complete(question("Describe this image."))
    assert done.text.strip()
    assert done.model in ("tiny-vision", "pixie-demo")
    assert done.finish_reason == "stop"
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens > 0


@each_asker
async def test_picture_arrives_byte_for_byte(kind: Kind) -> None:
    """The endpoint receives exactly the bytes of the prepared picture."""
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            image = picture((1, 2, 3))
            done = await backend.complete(Request(images=(image,), prompt="What?"))
    assert done.text == f"sha256={sent_sha256(image)} bytes={image.sent_bytes} size=64x48"


@each_asker
async def test_request_has_the_format_of_the_api(kind: Kind) -> None:
    """Prompt, system message, seed, temperature and token limit are in the fields of the API."""
    prompt = 'Say "cheese"\n\u2028 \U0001f9c0 \\u0041 </s>'
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            await backend.complete(
                question(prompt, system="Be brief.", seed=7, temperature=0.25, max_tokens=33)
            )
    assert asked(endpoint.questions[0]) == {
        "system": "Be brief.",
        "prompt": prompt,
        "max_tokens": 33,
        "temperature": 0.25,
        "seed": 7,
    }


@each_asker
async def test_unset_fields_are_not_sent(kind: Kind) -> None:
    """Without a system message and a seed, neither is in the request; the token limit always is."""
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            await backend.complete(question())
    told = asked(endpoint.questions[0])
    assert (told["system"], told["seed"], told["temperature"], told["max_tokens"]) == (None, None, 0.0, 512)


@each_kind
async def test_unknown_model_error_names_the_nearest(kind: Kind) -> None:
    """Preflight refuses a misspelt model, and the error names the nearest one."""
    models = {"tiny-vision": Model(), "other": Model(), "something": Model()}
    with kind.endpoint(models=models) as endpoint:
        async with kind.open(endpoint.url, model="tiny-visoin") as backend:
            with pytest.raises(
                FatalBackendError, match=r"no model 'tiny-visoin'; nearest: tiny-vision"
            ) as caught:
                await backend.preflight()
    assert caught.value.kind == "model_not_found"
    assert not endpoint.questions


@each_asker
async def test_blind_model_is_fatal(kind: Kind) -> None:
    """A model without vision is a fatal error: at preflight if the server reports it, else at a request."""

    async def run() -> None:
        async with kind.open(endpoint.url, model="tiny-text") as backend:
            await backend.preflight()
            await backend.complete(question())

    with kind.endpoint() as endpoint, pytest.raises(FatalBackendError, match="--model") as caught:
        await run()
    assert caught.value.kind == "no_vision"
    assert caught.value.exit_code == 2


@each_asker
async def test_many_at_once_keep_their_answers(kind: Kind) -> None:
    """Each of fifty simultaneous requests gets its own answer."""
    with kind.endpoint(answer=lambda request: f"re: {asked(request)['prompt']}") as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            prompts = [f"number {n}" for n in range(50)]
            done = await asyncio.gather(*(backend.complete(question(p)) for p in prompts))
    assert [d.text for d in done] == [f"re: {p}" for p in prompts]


@every_kind
async def test_usable_after_cancellations(kind: Kind) -> None:
    """After requests that are cancelled at any moment, the next ones are answered."""
    async with ready(kind) as backend:
        for round_ in range(20):
            asking = [asyncio.create_task(backend.complete(question())) for _ in range(4)]
            await asyncio.sleep(round_ * 0.0004)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        done = await asyncio.gather(*(backend.complete(question()) for _ in range(8)))
    assert all(d.text.strip() for d in done)


@each_asker
async def test_cancelled_requests_hang_up(kind: Kind) -> None:
    """Fifty cancelled requests close their connections, so that the endpoint stops working on them."""
    with kind.endpoint(script=["hang"] * 50) as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            asking = [asyncio.create_task(backend.complete(question())) for _ in range(50)]
            await asyncio.to_thread(endpoint.until, lambda: endpoint.open_questions == 50)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await asyncio.to_thread(endpoint.until, lambda: endpoint.abandoned == 50)
            assert (await backend.complete(question())).text


@every_kind
async def test_probe_of_a_healthy_endpoint(kind: Kind) -> None:
    """A probe of an endpoint that answers raises nothing."""
    async with ready(kind) as backend:
        await backend.probe()


@each_asker
async def test_key_is_sent_and_never_shown(kind: Kind) -> None:
    """The key is sent as a Bearer token with every request, and never shown."""
    key = "geheim-0123456789"
    with kind.endpoint(api_key=key) as endpoint:
        async with kind.open(endpoint.url, api_key=key) as backend:
            found = await backend.preflight()
            await backend.complete(question())
            endpoint.api_key = "another one"
            with pytest.raises(FatalBackendError, match="refuses this client") as caught:
                await backend.complete(question())
    answered = [r for r in endpoint.requests if r.path.startswith(("/api", "/v1"))]
    assert {r.headers["authorization"] for r in answered} == {f"Bearer {key}"}
    assert caught.value.kind == "auth"
    shown = [found, backend, backend.place, caught.value, repr(caught.value), caught.value.__cause__]
    assert key not in " ".join(map(str, shown))


@each_kind
async def test_login_in_the_url_is_used_and_never_shown(kind: Kind) -> None:
    """user:password@ in the URL becomes a Basic login, overrides the key, and is never shown."""
    with kind.endpoint() as endpoint:
        url = endpoint.url.replace("http://", "http://anna:ge%40heim@")
        async with kind.open(url, api_key="some-key-123") as backend:
            found = await backend.preflight()
            await backend.complete(question())
            endpoint.script = ["ok", "401"]
            with pytest.raises(FatalBackendError) as refused:
                await backend.complete(question())
            endpoint.down()
            with pytest.raises(BackendError) as away:
                await backend.complete(question())
    login = base64.b64encode(b"anna:ge@heim").decode()
    assert {r.headers["authorization"] for r in endpoint.requests} == {f"Basic {login}"}
    shown = " ".join(map(str, [found, backend.place, refused.value, away.value]))
    assert not any(secret in shown for secret in ("anna", "heim", login, "some-key-123"))
    assert f"127.0.0.1:{endpoint.port}" in shown


@each_asker
async def test_proxy_settings_leave_loopback_alone(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not used for this machine."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with kind.endpoint() as endpoint:
        async with kind.open(endpoint.url) as backend:
            await backend.preflight()
            assert (await backend.complete(question())).text


@pytest.mark.parametrize("backend", ["ollama", "openai"])
async def test_proxy_settings_apply_to_other_hosts(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to another host go through the proxy of the environment."""
    with Endpoint() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with KINDS[backend].open("http://model.invalid:1234") as opened:
            with pytest.raises(FatalBackendError, match="--backend"):
                await opened.preflight()
    assert proxy.requests
    assert all(request.path.startswith("http://model.invalid:1234/") for request in proxy.requests)
