"""Results to write, and helpers that the tests of the writers share with the processes they start."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import FailureKind
from vlmbatch.images import FileStamp, ImageFacts, ImageRef
from vlmbatch.records import Completion, Endpoint, Failure, Result
from vlmbatch.writers import JsonlWriter

RUN = "9f3c2a1b7d04"
STAMP = FileStamp(bytes=2311040, mtime=1763800000.1234567)
ENDPOINT = Endpoint(backend="ollama", url="http://127.0.0.1:11434", model="llava:7b")
PLAIN = OutputOptions()
OUTCOMES = {True: "done", False: "failed", None: "ask"}


def answered(image: str, text: str = "A grey cat.", **changes: Any) -> Result:
    """A result with an answer."""
    return _result(image, completion=Completion(text=text, model="llava:7b", finish_reason="stop"), **changes)


def failed(image: str, *, retryable: bool = False, kind: FailureKind | None = None, **changes: Any) -> Result:
    """A result with a failure."""
    kind = kind or ("timeout" if retryable else "bad_image")
    failure = Failure(kind=kind, message="no", retryable=retryable)
    return _result(image, failure=failure, **changes)


def _result(image: str, *, stamp: FileStamp | None = STAMP, run: str = RUN, **rest: Any) -> Result:
    return Result(
        id=image,
        endpoint=ENDPOINT,
        run=run,
        started_at=datetime(2026, 11, 22, 10, tzinfo=UTC),
        duration_s=2.31,
        image=ImageFacts.of(stamp, None),
        **rest,
    )


def ref(image: str, prompt: str | None = None) -> ImageRef:
    """A reference to an image that is never opened."""
    return ImageRef(id=image, uri=image, prompt=prompt)


async def write(
    path: Path,
    results: Iterable[Result],
    options: OutputOptions = PLAIN,
    *,
    run: str = RUN,
    settings: Mapping[str, Any] | None = None,
) -> JsonlWriter:
    """One complete run that writes these results."""
    async with JsonlWriter(str(path), options) as writer:
        await writer.begin(run, settings or {})
        for result in results:
            await writer.write(result)
    return writer


async def outcomes(
    path: Path, images: Iterable[str], options: OutputOptions = PLAIN, stamp: FileStamp | None = STAMP
) -> list[str]:
    """The decision of the next run for each image: done, failed or ask."""
    async with JsonlWriter(str(path), options) as writer:
        finished = await writer.begin(RUN, {})
        return [OUTCOMES[finished(ref(image), lambda _: stamp)] for image in images]


async def write_missing(path: Path, images: Iterable[str], text: str = "A grey cat.") -> list[str]:
    """One run that writes an answer for each unfinished image; returns these images."""
    written = []
    async with JsonlWriter(str(path), PLAIN) as writer:
        finished = await writer.begin(RUN, {})
        for image in images:
            if finished(ref(image), lambda _: STAMP) is None:
                await writer.write(answered(image, text))
                written.append(image)
    return written


def records(path: Path) -> list[dict[str, Any]]:
    """All records of a file; every line must be a record."""
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def lines_of_runs(output: Path) -> list[dict[str, Any]]:
    """All lines of FILE.runs next to this output; each must be JSON."""
    return records(Path(f"{output}.runs"))


def start_python(script: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A new Python process with the import path of this one."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
