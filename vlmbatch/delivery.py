"""Where results go once they are there: the writer, the tally, whoever started the run, the observers."""

from collections.abc import Awaitable, Callable
from functools import partial

from vlmbatch.events import ImageFinished, tell
from vlmbatch.images import FileStamp, ImageRef
from vlmbatch.protocols import Finished, Observer, Writer
from vlmbatch.records import Result
from vlmbatch.tally import Tally
from vlmbatch.verdicts import Verdicts


class Delivery:
    """Takes each result of a run, and brings on what may be written now."""

    def __init__(
        self,
        finished: Finished,
        writer: Writer | None,
        deliver: Callable[[Result], Awaitable[None]],
        notify: Observer,
        keep: Callable[[Result], None] = lambda result: None,
    ) -> None:
        """`finished` tells what earlier runs have done; `deliver` and `keep` get what is written."""
        self.tally = Tally()
        self._finished = finished
        self._writer = writer
        self._deliver = deliver
        self._notify = notify
        self._keep = keep
        self._answered_before = False
        self._verdicts = Verdicts(partial(tell, notify), lambda: self._answered_before)

    def finished(self, ref: ImageRef, get_stamp: Callable[[], FileStamp | None]) -> bool | None:
        """Whether an image needs no asking; see protocols.Finished."""
        done = self._finished(ref, get_stamp)
        self._answered_before = self._answered_before or done is True
        return done

    async def take(self, result: Result) -> None:
        """Bring on this result and those that it settles; it may be held back until others tell more."""
        await self._bring(self._verdicts.look_at(result))

    async def rest(self) -> None:
        """Bring on what was held back."""
        await self._bring(self._verdicts.rest())

    async def _bring(self, results: list[Result]) -> None:
        for result in results:
            if self._writer is not None:
                await self._writer.write(result)
            self.tally.add(result)
            self._keep(result)
            await self._deliver(result)
            self._notify(ImageFinished(result=result))
