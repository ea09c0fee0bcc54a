"""An endpoint with a fixed number of slots and a fixed latency, for benchmarks; it costs next to no CPU.

`python benchmarks/slots_server.py --slots 64 --latency 0.1` prints its URL and serves until the process ends.
It speaks Ollama's wire at that URL and OpenAI's below /v1. It reads each image and discards it. GET /stats
returns the number of answers and of busy slots, POST /stats restarts the statistics, and POST /die ends the
server without a word.
"""

import argparse
import asyncio
import json
import os
import re
import time
from collections import deque
from typing import Any

STEP_S = 0.1
"""Seconds of one step; busy slots are reported as the mean of each step."""
PICTURE_BYTES = 1_500
"""A larger request counts as one with an image."""
NO_MESSAGES = b'"messages": []'
MODEL = "slots"


class Slots:
    """Answers `slots` requests at once, each after `latency_s` seconds; further requests queue."""

    def __init__(self, slots: int, latency_s: float) -> None:
        self.slots = slots
        self.latency_s = latency_s
        self.queue: deque[Line] = deque()
        self.busy = 0
        self.reset()

    def reset(self) -> None:
        """Restart the statistics."""
        self.answered = 0
        self._began: float | None = None
        self._last = 0.0
        self._steps: list[float] = []

    def take(self, line: "Line") -> None:
        """Accept a request."""
        if self.busy < self.slots:
            self._start(line)
        else:
            self.queue.append(line)

    def _start(self, line: "Line") -> None:
        self._count()
        self.busy += 1
        asyncio.get_running_loop().call_later(self.latency_s, self._end, line)

    def _end(self, line: "Line") -> None:
        self._count()
        self.busy -= 1
        self.answered += 1
        line.answer(self.answered)
        if self.queue:
            self._start(self.queue.popleft())

    def _count(self) -> None:
        """Add the busy time since the last change to its steps."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._last = now
        while self._last < now:
            step = int((self._last - self._began) / STEP_S + 1e-9)
            until = min(now, self._began + (step + 1) * STEP_S)
            while len(self._steps) <= step:
                self._steps.append(0.0)
            self._steps[step] += self.busy * (until - self._last)
            self._last = until

    def stats(self) -> dict[str, Any]:
        """The reply of /stats: `busy` is the share of busy slots in each step."""
        shares = [step / (self.slots * STEP_S) for step in self._steps]
        return {"answered": self.answered, "step_s": STEP_S, "busy": shares}


class Line(asyncio.Protocol):
    """One connection. Requests come one after the other on it."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._head = b""
        self._missing = 0
        self._path = ""
        self._method = ""
        self._length = 0
        self._loads = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._head = b""
            self._method, self._path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            self._length = int(length[1]) if length else 0
            self._missing = self._length - len(rest)
            self._loads = NO_MESSAGES in rest
        else:
            self._missing -= len(data)
            self._loads |= NO_MESSAGES in data
        if not self._missing:
            self._ask()

    def _ask(self) -> None:
        if self._loads:  # Ollama loads the model, and replies at once if it is loaded
            self._reply({"model": MODEL, "done": True, "done_reason": "load"})
        elif self._path.endswith(("/chat", "/chat/completions")):
            self._slots.take(self)
        elif self._path == "/die":
            os._exit(0)
        elif self._path == "/stats":
            if self._method == "POST":
                self._slots.reset()
            self._reply(self._slots.stats())
        elif self._path.endswith("/models"):
            self._reply({"object": "list", "data": [{"id": MODEL, "owned_by": "vllm"}]})
        else:  # Ollama's facts about itself and its only model
            one = {"name": MODEL, "model": MODEL, "digest": "0", "capabilities": ["completion", "vision"]}
            self._reply({"models": [one], "capabilities": one["capabilities"], "version": "0.33.0"})

    def answer(self, number: int) -> None:
        """Answer the request of this connection."""
        text = f"answer {number}"
        tokens = 256 if self._length > PICTURE_BYTES else 8
        if self._path.startswith("/api"):
            told = {
                "model": MODEL, "message": {"role": "assistant", "content": text}, "done": True,
                "done_reason": "stop", "prompt_eval_count": tokens, "eval_count": 8,
            }  # fmt: skip
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": tokens, "completion_tokens": 8}
            told = {"model": MODEL, "choices": [choice], "usage": usage}
        self._reply(told)

    def _reply(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def serve(slots: int, latency_s: float) -> None:
    """Serve on a free port of this machine, and print the URL."""
    table = Slots(slots, latency_s)
    server = await asyncio.get_running_loop().create_server(lambda: Line(table), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.1)
    given = parser.parse_args()
    asyncio.run(serve(given.slots, given.latency))


if __name__ == "__main__":
    main()
