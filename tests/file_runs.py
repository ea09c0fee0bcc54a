"""Runs over the folder photos, with a good photo and other files, and the outcome of each file."""

from pathlib import Path
from typing import Any

from command import records
from endpoint import Endpoint
from running import Ran, ran

from vlmbatch.records import Failure


async def over(endpoint: Endpoint, *paths: str, **options: object) -> Ran:
    """A run over photos, or over these paths; the good photo must be answered in spite of other files."""
    done = await ran(*paths, backend="ollama", base_url=endpoint.url, **options)
    assert done.error is None
    if not paths:
        assert next(r for r in done.results if r.id == "photos/p0000.jpg").ok
    return done


def failures(done: Ran) -> dict[str, Failure]:
    """Each failure by the name of its file."""
    return {Path(r.id).name: r.failure for r in done.results if r.failure}


def asking(endpoint: Endpoint, *more: str, paths: str = "photos") -> tuple[str, ...]:
    return ("run", paths, "-b", "ollama", "--base-url", endpoint.url, "-o", "o.jsonl", *more)


def written() -> dict[str, dict[str, Any]]:
    """Each record of the output by the name of its file."""
    lines = Path("o.jsonl").read_text() if Path("o.jsonl").exists() else ""
    return {Path(r["id"]).name: r for r in records(lines)}
