"""Pulls from a server that is no real Ollama."""

import asyncio
import json

import pytest
from backend_contract import KINDS, babbling, reply

from vlmbatch.backends.http.transport import PIECE_BYTES
from vlmbatch.backends.ollama.pull import MOST_LAYERS, Pulled
from vlmbatch.errors import TransientError

SUCCESS = b'{"status": "success"}\n'


def layers(number: int) -> bytes:
    """The report of a pull of a model with this many layers."""
    told = ({"status": "pulling", "digest": f"d{i}", "total": 10, "completed": 4} for i in range(number))
    return b"".join(json.dumps(each).encode() + b"\n" for each in told) + SUCCESS


async def pulled(body: bytes) -> Pulled:
    """The last progress of a pull with this report."""
    steps: list[Pulled] = []
    async with babbling(reply(body)) as url, KINDS["ollama"].open(url, model="tiny") as backend:
        await backend.pull("tiny", steps.append, silence_s=60)  # type: ignore[attr-defined]
    return steps[-1]


async def test_a_model_has_no_endless_layers() -> None:
    """A report of more layers than any model has ends the pull for now; one with the most is read."""
    assert (await pulled(layers(MOST_LAYERS))).completed == 4 * MOST_LAYERS
    with pytest.raises(TransientError, match="too many layers") as caught:
        await pulled(layers(MOST_LAYERS + 1))
    assert caught.value.kind == "bad_response"


async def test_a_fast_report_leaves_time_for_other_work() -> None:
    """While the lines of a report come faster than they are read, the event loop does other work."""
    blank = 300_000
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    work = asyncio.create_task(other_work())
    assert (await pulled(b"\n" * blank + SUCCESS)).status == "success"
    work.cancel()
    assert turns >= blank // PIECE_BYTES
