"""The Ollama backend: OLLAMA_HOST, preflight, and the body of /api/chat."""

import hashlib
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from backend_contract import KINDS, babbling, picture, question, reply
from endpoint import Endpoint, Model

from vlmbatch.backends.ollama.backend import OllamaBackend
from vlmbatch.backends.ollama.options import host_url
from vlmbatch.backends.ollama.pull import Pulled
from vlmbatch.errors import BadAnswerError, ConfigError, FatalBackendError, UnavailableError

OLLAMA = KINDS["ollama"]

# the cases of TestHost and TestConnectableHost in Ollama's envconfig, and some that users type
HOSTS = {
    "": "http://127.0.0.1:11434",
    "1.2.3.4": "http://1.2.3.4:11434",
    "1.2.3.4:1234": "http://1.2.3.4:1234",
    ":1234": "http://127.0.0.1:1234",
    ":0": "http://127.0.0.1:0",
    ":66000": "http://127.0.0.1:11434",
    ":-1": "http://127.0.0.1:11434",
    ":²": "http://127.0.0.1:11434",
    "example.com": "http://example.com:11434",
    "example.com:1234": "http://example.com:1234",
    "example.com:": "http://example.com:11434",
    "[::1]": "http://[::1]:11434",
    "[::1]:1337": "http://[::1]:1337",
    "::1": "http://[::1]:11434",
    "2001:db8::a": "http://[2001:db8::a]:11434",
    "[::]": "http://[::1]:11434",
    "[::]:1337": "http://[::1]:1337",
    "0.0.0.0": "http://127.0.0.1:11434",
    "0.0.0.0:1234": "http://127.0.0.1:1234",
    "http://0.0.0.0": "http://127.0.0.1:80",
    " 1.2.3.4 ": "http://1.2.3.4:11434",
    '"1.2.3.4"': "http://1.2.3.4:11434",
    ' " 1.2.3.4 " ': "http://1.2.3.4:11434",
    "'1.2.3.4'": "http://1.2.3.4:11434",
    "http://1.2.3.4": "http://1.2.3.4:80",
    "http://1.2.3.4:4321": "http://1.2.3.4:4321",
    "http://1.2.3.4:99999": "http://1.2.3.4:80",
    "https://1.2.3.4": "https://1.2.3.4:443",
    "https://1.2.3.4:4321": "https://1.2.3.4:4321",
    "https://example.com/ollama": "https://example.com:443/ollama",
    "example.com/ollama/": "http://example.com:11434/ollama",
    "http://localhost/": "http://localhost:80",
    "ollama.com": "https://ollama.com:443",
    "http://me:secret@example.com": "http://me:secret@example.com:80",
    "me:secret@example.com:1234": "http://me:secret@example.com:1234",
    "http://me:se:cret@[::1]:1234": "http://me:se:cret@[::1]:1234",
}


@pytest.mark.parametrize("typed", HOSTS, ids=repr)
def test_host_is_read_as_ollama_reads_it(typed: str) -> None:
    """OLLAMA_HOST is parsed to the same address as in Ollama's own client."""
    assert host_url(typed) == HOSTS[typed]


@pytest.mark.parametrize("host", ["ftp://example.com", "unix:///tmp/ollama.sock", "a:b:c", "a\u2028b"])
def test_host_that_is_no_address(host: str) -> None:
    """An OLLAMA_HOST that is not an HTTP address is an error before anything is sent."""
    with pytest.raises(ConfigError, match="OLLAMA_HOST"):
        OLLAMA.open(None, {"OLLAMA_HOST": host})


async def test_host_comes_from_the_environment() -> None:
    """OLLAMA_HOST sets the address, even in the form 0.0.0.0 that servers listen on."""
    with Endpoint() as endpoint:
        environ = {"OLLAMA_HOST": f" '0.0.0.0:{endpoint.port}'"}
        async with OLLAMA.open(None, environ) as backend:
            found = await backend.preflight()
    assert found.url == endpoint.url


async def test_base_url_beats_the_environment(endpoint: Endpoint) -> None:
    """--base-url overrides OLLAMA_HOST."""
    async with OLLAMA.open(endpoint.url, {"OLLAMA_HOST": "127.0.0.1:9"}) as backend:
        assert (await backend.preflight()).url == endpoint.url


@pytest.mark.parametrize("backend", ["ollama", "auto"])
async def test_v1_of_openai_clients_is_dropped(backend: str, endpoint: Endpoint) -> None:
    """The /v1 of an address for OpenAI clients is dropped, since only Ollama's own API has num_ctx."""
    async with OLLAMA.open(f"{endpoint.url}/v1", backend=backend) as opened:
        assert (await opened.preflight()).url == endpoint.url


async def test_server_that_is_not_ollama() -> None:
    """The error for a server with another API names the backends to use instead."""
    with Endpoint(speaks=["openai"]) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            with pytest.raises(
                FatalBackendError, match=r"is not an Ollama server: .*--backend vllm"
            ) as caught:
                await backend.preflight()
    assert caught.value.kind == "wrong_url"


async def test_path_of_a_proxy_is_kept(endpoint: Endpoint) -> None:
    """Requests to an Ollama behind a path of a web server keep that path."""
    async with OLLAMA.open(f"{endpoint.url}/ai/ollama/") as backend:
        with pytest.raises(FatalBackendError, match="--base-url"):
            await backend.preflight()
    assert endpoint.requests
    assert all(request.path.startswith("/ai/ollama/api/") for request in endpoint.requests)


async def test_key_comes_from_the_environment() -> None:
    """OLLAMA_API_KEY is sent like Ollama's own client sends it."""
    with Endpoint(api_key="some-key-123") as endpoint:
        async with OLLAMA.open(endpoint.url, {"OLLAMA_API_KEY": "some-key-123"}) as backend:
            assert (await backend.preflight()).model == "tiny-vision"


async def test_only_vision_model_is_taken(endpoint: Endpoint) -> None:
    """Without --model the only vision model is used, however many text models exist."""
    async with OLLAMA.open(endpoint.url, model=None) as backend:
        assert (await backend.preflight()).model == "tiny-vision"
        assert (await backend.complete(question())).model == "tiny-vision"


async def test_several_vision_models() -> None:
    """Without --model several vision models are an error that lists only them."""
    models = {"a:7b": Model(), "b": Model(), "blind": Model(vision=False)}
    with Endpoint(models=models) as endpoint:
        async with OLLAMA.open(endpoint.url, model=None) as backend:
            with pytest.raises(ConfigError, match=r"2 models to choose from: a:7b, b:latest; .*--model"):
                await backend.preflight()


async def test_no_vision_model() -> None:
    """The error for a server without a vision model contains the command that pulls one."""
    with Endpoint(models={"blind": Model(vision=False)}) as endpoint:
        async with OLLAMA.open(endpoint.url, model=None) as backend:
            with pytest.raises(FatalBackendError, match=r"no vision model; .*vlmbatch pull") as caught:
                await backend.preflight()
    assert caught.value.kind == "model_not_found"


async def test_unknown_model_can_be_pulled(endpoint: Endpoint) -> None:
    """The error for an unknown model contains the command that pulls this model."""
    async with OLLAMA.open(endpoint.url, model="llava:7b") as backend:
        with pytest.raises(FatalBackendError, match="vlmbatch pull llava:7b"):
            await backend.preflight()


async def test_latest_is_the_same_model(endpoint: Endpoint) -> None:
    """A model with and without :latest is one model: the same name and the same digest."""
    found = []
    for name in ("tiny-vision", "tiny-vision:latest"):
        async with OLLAMA.open(endpoint.url, model=name) as backend:
            found.append(await backend.preflight())
            assert (await backend.complete(question())).model == "tiny-vision"
    assert found[0] == found[1]
    assert found[0].digest
    assert found[0].context == 8192


async def test_old_ollama_lists_no_capabilities() -> None:
    """An Ollama that lists no capabilities is used, with a note that the model may lack vision."""
    told = reply({"models": [{"name": "m:latest"}]})
    async with babbling(told) as url, OLLAMA.open(url, model="m") as backend:
        found = await backend.preflight()
    assert (found.model, found.digest, found.context) == ("m", None, None)
    assert "does not report whether m can see images" in found.notes[0]


async def test_refused_host_name() -> None:
    """The error for Ollama's empty 403 of a refused host name explains it."""
    with Endpoint(routes=dict.fromkeys(("/api/tags", "/api/show", "/api/chat"), "403-empty")) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            with pytest.raises(FatalBackendError, match=r"OLLAMA_HOST=0\.0\.0\.0"):
                await backend.preflight()


async def test_still_loading() -> None:
    """An Ollama that is busy at preflight and answers no question is unavailable: the run waits for it."""
    with Endpoint(routes={"/api/show": "503-busy", "/api/chat": "503-busy"}) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            with pytest.raises(UnavailableError, match="test with a picture failed, too"):
                await backend.preflight()


async def body_of(endpoint: Endpoint, *, options: dict[str, Any], **generation: Any) -> dict[str, Any]:
    """The body of one request with these options."""
    async with OLLAMA.open(endpoint.url, **options) as backend:
        await backend.preflight()
        await backend.complete(question("What?", **generation))
    body = endpoint.questions[-1].body
    assert isinstance(body, dict)
    return body


async def test_whole_body(endpoint: Endpoint) -> None:
    """The body has exactly these fields: no stream, no truncation, and keep_alive."""
    body = await body_of(endpoint, options={})
    assert body == {
        "model": "tiny-vision",
        "messages": [{"role": "user", "content": "What?", "images": [picture().data.decode()]}],
        "stream": False,
        "options": {"num_predict": 512, "temperature": 0.0},
        "truncate": False,
        "keep_alive": "30m",
    }


async def test_options_when_asked_for(endpoint: Endpoint) -> None:
    """num_ctx and seed are sent only if they are set: another num_ctx would reload the model."""
    body = await body_of(endpoint, options={}, num_ctx=4096, seed=3, max_tokens=9)
    assert body["options"] == {"num_predict": 9, "temperature": 0.0, "seed": 3, "num_ctx": 4096}


@pytest.mark.parametrize(("typed", "sent"), [("5m", "5m"), ("-1", -1), ("0", 0), ("90", 90)])
async def test_keep_alive_without_a_unit(endpoint: Endpoint, typed: str, sent: str | int) -> None:
    """Seconds without a unit are sent as a number, the only form that Ollama accepts."""
    assert (await body_of(endpoint, options={"keep_alive": typed}))["keep_alive"] == sent


async def test_keep_alive_is_left_to_ollama(endpoint: Endpoint) -> None:
    """If keep_alive is empty, it is not sent, and Ollama's own setting applies."""
    assert "keep_alive" not in await body_of(endpoint, options={"keep_alive": None})


async def test_thinking_is_turned_off_for_thinking_models() -> None:
    """`think` is false for a thinking model and absent for another, unless the request sets it."""
    with Endpoint(models={"thinker": Model(thinking=True), "plain": Model()}) as endpoint:
        assert (await body_of(endpoint, options={"model": "thinker"}))["think"] is False
        assert (await body_of(endpoint, options={"model": "thinker"}, thinking=True))["think"] is True
        assert "think" not in await body_of(endpoint, options={"model": "plain"})
        assert (await body_of(endpoint, options={"model": "plain"}, thinking=False))["think"] is False


async def test_thoughts_are_counted_not_kept() -> None:
    """The completion has only the length of the model's thinking, not its text."""
    with Endpoint(models={"thinker": Model(thinking=True)}) as endpoint:
        async with OLLAMA.open(endpoint.url, model="thinker") as backend:
            await backend.preflight()
            done = await backend.complete(question(thinking=True))
    assert done.thinking == len("Let me look.")
    assert "Let me look" not in done.text


async def test_broken_off_answer_is_no_answer() -> None:
    """A 200 with done:false, which Ollama sends to stop a loop, is a bad answer with its text."""
    with Endpoint(script=["done_false"]) as endpoint:
        async with OLLAMA.open(endpoint.url) as backend:
            await backend.preflight()
            with pytest.raises(BadAnswerError) as caught:
                await backend.complete(question())
    assert (caught.value.kind, caught.value.partial) == ("degenerate", "!!!!!!!")


async def test_all_pictures_of_a_question_go_out(endpoint: Endpoint) -> None:
    """Two pictures are sent in one request, in their order."""
    two = replace(question(), images=(picture(), picture((0, 0, 0))))
    async with OLLAMA.open(endpoint.url) as backend:
        await backend.complete(two)
    sent = [seen.sha256 for seen in endpoint.questions[0].pictures]
    assert sent == [hashlib.sha256(b64decode(each.data)).hexdigest() for each in two.images]


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", "1e999", "-1", '"x"', "null", "9" * 400, "9" * 5000])
async def test_sizes_that_cannot_be_used_do_not_end_a_pull(odd: str) -> None:
    """A pull goes on after a step whose sizes are not numbers; they count as 0."""
    step = '{"status": "pulling", "digest": "a", "total": #, "completed": #}'
    lines = (step.replace("#", odd), step.replace("#", "7"), '{"status": "success"}')
    steps: list[Pulled] = []
    async with babbling(reply("\n".join(lines).encode())) as url, KINDS["ollama"].open(url) as backend:
        assert isinstance(backend, OllamaBackend)
        await backend.pull("tiny", steps.append, silence_s=20.0)
    assert [(each.status, each.completed, each.total) for each in steps] == [
        ("pulling", 0, 0),
        ("pulling", 7, 7),
        ("success", 7, 7),
    ]
