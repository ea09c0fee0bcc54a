"""docs/engines.md lists exactly the helper requests that the commands send."""

from collections.abc import Callable
from pathlib import Path

from documents import page, section, table
from endpoint import Endpoint
from running import ran

from vlmbatch.backends.registry import open_backend
from vlmbatch.commands.doctor import check_up
from vlmbatch.commands.models import take_inventory
from vlmbatch.commands.pull import Puller
from vlmbatch.config import RunConfig

Photos = Callable[..., Path]
ROWS = table(section(page("docs/engines.md"), "## What vlmbatch asks a server besides the images"))
PROPS = {"modalities": {"vision": True}, "total_slots": 2}


def ignore(_: object) -> None:
    """Receive a step or a message of a pull."""


async def sent(server: Endpoint, backend: str) -> set[str]:
    """The requests of all commands that are no questions, with a run that has a pause and no canary."""
    options = {"backend": backend, "base_url": server.url, "model": "tiny-vision"}
    server.script = ["429:1"]
    done = await ran(**options, unload=True, canary=False)
    assert done.error is None
    config = RunConfig.of("photos", **options)
    async for _ in check_up(config, None):
        pass
    await take_inventory(config)
    async with open_backend(config) as opened:
        await opened.load()
    if backend == "ollama":
        await Puller(config=config, wait=False, on_step=ignore, on_message=ignore).pull(["llava"])
    asked = [request for request in server.requests if request.chat is None]
    return {f"{request.method} {request.path}" for request in asked}


async def test_the_table_has_each_helper_request(photos: Photos) -> None:
    """The table names each request that is no question, once, and no request that is never sent."""
    photos(4)
    with Endpoint() as ollama, Endpoint() as vllm, Endpoint(owned_by="llamacpp", props=PROPS) as llama:
        found = await sent(ollama, "ollama") | await sent(vllm, "vllm") | await sent(llama, "llama-server")
    listed = [row[0] for row in ROWS]
    assert len(listed) == len(set(listed))
    assert set(listed) == found
