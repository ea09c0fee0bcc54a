"""An endpoint with a fixed number of slots and a fixed latency, in OpenAI's form, for benchmarks.

`python benchmarks/slots_server.py --slots 64 --latency 0.5` prints its URL and serves until it is ended.
"""

import argparse
import asyncio
import itertools

from aiohttp import web


class Slots:
    """Answers so many questions at once, each after `latency_s` seconds; the others queue."""

    def __init__(self, slots: int, latency_s: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._latency_s = latency_s
        self._numbers = itertools.count()

    async def chat(self, request: web.Request) -> web.Response:
        """One answer, different from all others."""
        body = await request.json()
        parts = [part for message in body["messages"] for part in message["content"]]
        words = sum(len(part["text"].split()) for part in parts if part["type"] == "text")
        tokens = words + 256 * sum(part["type"] == "image_url" for part in parts)
        async with self._slots:
            await asyncio.sleep(self._latency_s)
        message = {"role": "assistant", "content": f"answer {next(self._numbers)}"}
        usage = {"prompt_tokens": tokens, "completion_tokens": 8, "total_tokens": tokens + 8}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"model": "slots", "choices": [choice], "usage": usage})


async def models(_request: web.Request) -> web.Response:
    """The one model."""
    return web.json_response({"object": "list", "data": [{"id": "slots", "owned_by": "vllm"}]})


async def health(_request: web.Request) -> web.Response:
    """Always well."""
    return web.Response()


async def serve(slots: int, latency_s: float) -> None:
    """Serve on a free port of this machine, and print where."""
    app = web.Application(client_max_size=100_000_000)
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/v1/models", models),
            web.post("/v1/chat/completions", Slots(slots, latency_s).chat),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)  # how it is found
    await asyncio.Event().wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.1)
    given = parser.parse_args()
    asyncio.run(serve(given.slots, given.latency))


if __name__ == "__main__":
    main()
