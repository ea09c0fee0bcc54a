"""The cost of a request: one connection pool, and no second copy of its body, for both HTTP wires."""

import asyncio
import json
import socket
import threading
import tracemalloc
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from backend_contract import KINDS, babbling, picture, question, reply
from hypothesis import given
from hypothesis import strategies as st
from replying import OLLAMA, OPENAI, Raw, chat, replying

from vlmbatch.backends.http.connection import CHUNK_BYTES
from vlmbatch.backends.http.transport import Transport
from vlmbatch.backends.http.wire import BodyTemplate
from vlmbatch.errors import TransientError
from vlmbatch.records import Generation, Request

WIRES = pytest.mark.parametrize("name", ["ollama", "openai"])
LARGE = 20_000_000


@contextmanager
def swallowing(answer: bytes) -> Iterator[str]:
    """The URL of a server that reads one request through a small buffer, discards it, and answers."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            head = bytearray()
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            buffer = bytearray(65536)
            while length:
                length -= connection.recv_into(buffer)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@WIRES
async def test_a_large_picture_is_sent_without_a_copy(name: str) -> None:
    """20 MB are sent in pieces without a copy: the send allocates only a few chunks."""
    message = {"role": "assistant", "content": "A dog."}
    told = {"message": message, "done": True, "choices": [{"message": message, "finish_reason": "stop"}]}
    large = replace(question(), images=(replace(picture(), data=b"A" * LARGE),))
    with swallowing(reply(told)) as url:
        async with KINDS[name].open(url) as backend:
            tracemalloc.start()
            try:
                await backend.complete(large)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES < LARGE / 8


@WIRES
@pytest.mark.parametrize("more", [0, CHUNK_BYTES, 3 * CHUNK_BYTES + 1])
async def test_pictures_of_any_size_arrive_whole(name: str, more: int) -> None:
    """A picture of any size arrives complete, however its body is split into chunks."""
    whole = b64decode(picture().data) + bytes(n % 251 for n in range(more))
    with KINDS[name].endpoint() as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.complete(replace(question(), images=(replace(picture(), data=b64encode(whole)),)))
    assert endpoint.questions[0].pictures[0].data == whole


@given(st.lists(st.tuples(st.text(), st.none() | st.text(), st.sampled_from([None, 1, 2])), max_size=6))
def test_a_body_template_fits_its_question(questions: list[tuple[str, str | None, int | None]]) -> None:
    """The pieces are the JSON of this request around its picture, whatever request came before."""

    def body(request: Request, image: str) -> dict[str, object]:
        return {
            "prompt": request.prompt,
            "system": request.system,
            "seed": request.generation.seed,
            "p": image,
        }

    template, first = BodyTemplate(body), question()
    for prompt, system, seed in questions:
        asked = replace(first, prompt=prompt, system=system, generation=Generation(seed=seed))
        sent = json.loads(b"".join(template.fill(asked)))
        assert sent == body(asked, first.images[0].data.decode())


@WIRES
async def test_requests_share_a_pool(name: str) -> None:
    """Sequential requests share one connection; simultaneous requests use one each."""
    with KINDS[name].endpoint() as endpoint:
        async with KINDS[name].open(endpoint.url) as backend:
            await backend.preflight()
            opened = endpoint.connections
            assert opened == (2 if name == "ollama" else 1)  # Ollama gets two helper requests at once
            for _ in range(3):
                await backend.complete(question())
            assert endpoint.connections == opened
            endpoint.hold_until(lambda: endpoint.open_questions == 5)
            await asyncio.gather(*(backend.complete(question()) for _ in range(5)))
            assert endpoint.connections == 5


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("br", "is compressed with br, which needs another package; .*pip install Brotli"),
        ("zstd", r"is compressed with zstd, which needs another package; .*pip install backports\.zstd"),
        ("gzip", "cannot be decompressed: .*; turn compression off at the server"),
    ],
)
@WIRES
async def test_a_reply_that_cannot_be_decompressed(name: str, encoding: str, told: str) -> None:
    """A compressed reply that cannot be read is an error that says what to do; br is not requested."""
    with replying(
        lambda path, text: Raw(body=b"\x0b\x02\x80not", headers=(("Content-Encoding", encoding),))
    ) as server:
        async with KINDS[name].open(server.url, model="tiny") as backend:
            with pytest.raises(TransientError, match=told) as caught:
                await backend.complete(question())
    assert caught.value.kind == "bad_response"
    assert server.asked[0].headers["accept-encoding"] == "gzip, deflate"


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@WIRES
async def test_a_few_interim_replies_are_read(name: str) -> None:
    """A reply may come after a few interim ones."""
    done = chat(OLLAMA if name == "ollama" else OPENAI, "seen")
    async with (
        babbling(3 * INTERIM + reply(json.dumps(done).encode())) as url,
        KINDS[name].open(url, model="tiny") as backend,
    ):
        assert (await backend.complete(question())).text == "seen"


@WIRES
async def test_endless_interim_replies_end_the_connection(name: str) -> None:
    """A connection with many interim replies is closed, and its request fails for now."""
    async with (
        babbling(20_000 * INTERIM + reply(b"{}")) as url,
        KINDS[name].open(url, model="tiny") as backend,
    ):
        with pytest.raises(TransientError, match="endless interim replies") as caught:
            await backend.complete(question())
    assert caught.value.kind == "connection"


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "nowhere.invalid"])
async def test_a_host_without_an_address_may_listen(host: str) -> None:
    """Whether a host listens whose name cannot be resolved is unknown, and no error."""
    assert await Transport(f"http://{host}/v1", None, timeout_s=1, hint="").listens()
