"""The reply to a batch: one JSON line for each image, in the order in which the answers come."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import StreamingResponse

from vlmbatch.pipeline.question import Question
from vlmbatch.records import to_line
from vlmbatch.service.answers import answered, body_of, note
from vlmbatch.service.call import Call
from vlmbatch.service.models import MOST_AT_ONCE, ServedModel
from vlmbatch.service.problems import Problem, error_body
from vlmbatch.service.reading import Upload


class BatchReply(StreamingResponse):
    """Sends the lines; its status is 200, and each line has its own failure."""

    def __init__(
        self, served: ServedModel, question: Question, pictures: Sequence[Upload], call: Call
    ) -> None:
        self._served = served
        self._question = question
        self._pictures = pictures
        self._call = call
        super().__init__(
            self._lines(), media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"}
        )

    async def _lines(self) -> AsyncIterator[bytes]:
        places = asyncio.Semaphore(min(MOST_AT_ONCE, self._served.slots))

        async def line(index: int, picture: Upload) -> bytes:
            async with places:
                return to_line(await self._answer(index, picture))

        tasks = [asyncio.create_task(line(*each)) for each in enumerate(self._pictures)]
        try:
            for ready in asyncio.as_completed(tasks):
                yield await ready
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _answer(self, index: int, picture: Upload) -> dict[str, Any]:
        """The line of one image: its record, or why it has none."""
        place = {"index": index, "id": picture.name}
        try:
            result = await answered(self._served, [picture.data], self._question, picture.name, self._call)
        except Problem as problem:
            self._call.kind = problem.kind
            told = error_body(problem, self._call.request_id, self._call.path)
            return {**place, "status": "error", **told}
        note(result, self._call)
        return {**place, **body_of(result, self._call)}
