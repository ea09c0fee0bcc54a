"""Makes the pictures of a task fit into the context of its endpoint, and remembers what fits there."""

from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.picture_limits import PictureLimit, PictureLimits, Shrunk
from vlmbatch.errors import BackendError, BadAnswerError
from vlmbatch.events import tell
from vlmbatch.imaging.fitting import Misfit, fitting_pixels, pixels_of
from vlmbatch.pipeline.preparer import Preparer
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Observer

LARGER = {
    "ollama": "to avoid that, set a larger --num-ctx",
    "vllm": "to avoid that, start vLLM with a larger --max-model-len",
    "llama-cpp": "to avoid that, set a larger --num-ctx",
}
"""How an engine gets a larger context, by backend."""
USUAL_LARGER = "to avoid that, start the server with a larger context"


class ContextFit:
    """Shrinks pictures that do not fit, and remembers at which size they fit."""

    def __init__(self, preparer: Preparer, limits: PictureLimits, notify: Observer) -> None:
        self._preparer = preparer
        self._limits = limits
        self._notify = notify

    def refused(self, task: ImageTask, endpoint: PooledEndpoint, error: BackendError) -> None:
        """If the pictures did not fit, choose a smaller size; no larger picture is sent while it is tried."""
        if not isinstance(error, BadAnswerError) or error.change != "shrink" or not task.pictures:
            return
        misfit = Misfit(pixels=pixels_of(task.pictures), overflow=error.overflow)
        pixels = fitting_pixels(misfit, task.request, task.shrunk.misfit if task.shrunk else None)
        is_lasting = error.kind == "context" or error.overflow is not None
        task.shrunk = Shrunk(endpoint=endpoint, misfit=misfit, pixels=pixels, is_lasting=is_lasting)
        if is_lasting:
            size = max((picture.width, picture.height) for picture in task.pictures)
            self._limits.try_out(endpoint, task.question.run, pixels, size)

    async def shrink(self, task: ImageTask, error: BadAnswerError) -> None:
        """Make the pictures smaller after this error; raises as Preparer.shrink() does."""
        if error.change == "shrink" and task.shrunk is not None:
            await self._preparer.shrink(task, task.shrunk.pixels)

    async def keep_limit(self, task: ImageTask, endpoint: PooledEndpoint) -> None:
        """Make pictures smaller that were prepared before the limit of this endpoint was known."""
        limit = self._limits.of(endpoint, task.question.run)
        if limit is not None and pixels_of(task.pictures) > limit:
            await self._preparer.shrink(task, limit)

    def ended(self, task: ImageTask, *, answered: bool) -> None:
        """The task has its result: an answer to smaller pictures proves the limit, a failure withdraws it."""
        shrunk, question = task.shrunk, task.question.run
        if shrunk is None or not shrunk.is_lasting:
            return
        if not answered or task.asked_rank != shrunk.endpoint.rank:  # or only a fallback has answered
            self._limits.withdraw(shrunk.endpoint, question)
        elif (limit := self._limits.prove(shrunk.endpoint, question)) is not None:
            self._report(shrunk.endpoint, limit, len(task.pictures))

    def _report(self, endpoint: PooledEndpoint, limit: PictureLimit, pictures: int) -> None:
        wide, high = limit.refused
        tell(
            self._notify,
            f"pictures of {wide}x{high} pixels do not fit into the context of {endpoint.place}: from now on "
            f"they are sent with at most {(limit.pixels or 0) // pictures:,} pixels; "
            f"{larger_context(endpoint.identity.backend)}",
        )


def larger_context(backend: str) -> str:
    """What the user can do for a larger context."""
    return LARGER.get(backend, USUAL_LARGER)
