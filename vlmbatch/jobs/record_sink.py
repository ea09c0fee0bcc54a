"""Writes the records of jobs to an output, each of them once although a queue may deliver it twice."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from vlmbatch.config.run import OutputOptions
from vlmbatch.errors import OutputError
from vlmbatch.images import ImageRef
from vlmbatch.protocols import Finished
from vlmbatch.records import Result
from vlmbatch.writers import JsonlWriter, StreamWriter
from vlmbatch.writers.append import completed, reason
from vlmbatch.writers.written_lines import WrittenLines, stamp_of


class RecordSink:
    """The output of a collection, open inside ``async with``; its lock is that of a run."""

    def __init__(self, options: OutputOptions) -> None:
        self.skipped = 0
        """How many results were given that the output had before."""
        self._options = options
        self._writer = StreamWriter() if options.output == "-" else JsonlWriter(options.output, options)
        self._written = WrittenLines()
        self._finished: Finished
        self.run = ""

    async def __aenter__(self) -> Self:
        """Take the lock of the output; raises as JsonlWriter does."""
        await self._writer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the output; raises OutputError."""
        await self._writer.__aexit__(kind, error, trace)

    async def begin(self, run: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Open the output for records with this fingerprint, and return notices about it.

        Raises:
            ConfigError: it has only records of other settings.
            OutputError: it cannot be read or written.
        """
        self.run = run
        self._finished = await self._writer.begin(run, settings)
        if not self._options.overwrite:
            try:
                await completed(asyncio.to_thread(self._written.read, self._options.output))
            except OSError as error:
                raise OutputError(
                    f"cannot read {self._options.output}: {reason(error)}; name another file with --output"
                ) from error
        return self._writer.notices

    async def write(self, results: Sequence[Result]) -> list[Result]:
        """Write those of these results that the output does not have, and return them once they are synced.

        Raises:
            OutputClosed, OutputError: not all are written; the output ends at a whole line.
        """
        new = [result for result in results if self._is_new(result)]
        await asyncio.gather(*map(self._writer.write, new))
        await self._writer.sync()
        return new

    def _is_new(self, result: Result) -> bool:
        ref = ImageRef(id=result.id, uri="", prompt=result.prompt)
        if self._finished(ref, lambda _: stamp_of(result)) or self._written.was_there(result):
            self.skipped += 1
            return False
        return self._written.note(result)
