"""Clients of a service that send one request after the other, in a process of their own.

`python benchmarks/load_generator.py --url URL --folder SEEDS --clients 64 --seconds 10 --warm 2` sends
pictures to POST URL, all different, in base64 in JSON, over connections that stay open. After 429 and 503 a
client waits as Retry-After says, but one second at most. It prints its figures as JSON; `seconds` are counted
after those of `--warm`.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import corpora
import pybase64

LONGEST_WAIT_S = 1.0
TRY_AGAIN = (429, 503)


@dataclass(slots=True, kw_only=True)
class Load:
    """The replies so far. Only answers between `begin` and `end`, in seconds of the clock, are timed."""

    url: str
    pictures: Iterator[bytes]
    begin: float
    end: float
    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    async def client(self, session: aiohttp.ClientSession) -> None:
        """Send one request after the other until the end."""
        while time.monotonic() < self.end:
            try:
                wait_s = await self._request(session)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.broken[repr(error)] += 1
                wait_s = LONGEST_WAIT_S
            if wait_s:
                await asyncio.sleep(wait_s)

    async def _request(self, session: aiohttp.ClientSession) -> float:
        """Send one request; returns the seconds to wait before the next."""
        picture = pybase64.b64encode(next(self.pictures))
        body = b'{"prompt": "Describe this image.", "image_base64": "' + picture + b'"}'
        sent = time.monotonic()
        async with session.post(self.url, data=body) as reply:
            told = await reply.read()
        now = time.monotonic()
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.answers[json.loads(told)["result"]] += 1
            if self.begin <= now < self.end:
                self.latencies.append(now - sent)
        elif reply.status in TRY_AGAIN:
            return min(float(reply.headers["Retry-After"]), LONGEST_WAIT_S)
        return 0.0

    def figures(self) -> dict[str, Any]:
        """What is printed; latencies are in seconds."""
        cuts = statistics.quantiles(self.latencies, n=100, method="inclusive")
        return {
            "rate": len(self.latencies) / (self.end - self.begin),
            "p50_s": cuts[49],
            "p99_s": cuts[98],
            "statuses": self.statuses,
            "broken": self.broken,
            "repeated": self.answers.total() - len(self.answers),
            "cpu_s": time.process_time(),
        }


async def send(given: argparse.Namespace) -> dict[str, Any]:
    """Send until the time is over and all replies have come; returns the figures."""
    begin = time.monotonic() + given.warm
    load = Load(url=given.url, pictures=corpora.varied(given.folder), begin=begin, end=begin + given.seconds)
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await asyncio.gather(*(load.client(session) for _ in range(given.clients)))
    return load.figures()


def main() -> None:
    """Send, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm", type=float, default=0.0)
    print(json.dumps(asyncio.run(send(parser.parse_args()))))


if __name__ == "__main__":
    main()
