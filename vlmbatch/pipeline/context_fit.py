"""Makes the pictures of a task fit into the context of its endpoint, and remembers what fits there."""

from vlmbatch.endpoints.endpoint import PooledEndpoint
from vlmbatch.endpoints.picture_limits import PictureLimits, Shrunk
from vlmbatch.errors import BackendError, BadAnswerError
from vlmbatch.events import tell
from vlmbatch.imaging.fitting import Misfit, fitting_pixels, pixels_of
from vlmbatch.pipeline.preparer import Preparer
from vlmbatch.pipeline.task import ImageTask
from vlmbatch.protocols import Observer

LARGER = {
    "ollama": "a larger --num-ctx avoids that",
    "vllm": "a larger --max-model-len of vLLM avoids that",
    "llama-cpp": "a larger --num-ctx avoids that",
}
"""How an engine gets a larger context, by backend."""
USUAL_LARGER = "a larger context of the server avoids that"


class ContextFit:
    """Shrinks pictures that do not fit, and remembers at which size they fit."""

    def __init__(self, preparer: Preparer, limits: PictureLimits, notify: Observer) -> None:
        self._preparer = preparer
        self._limits = limits
        self._notify = notify

    def refused(self, task: ImageTask, endpoint: PooledEndpoint, error: BackendError) -> None:
        """If the pictures did not fit, choose a smaller size; no larger picture is sent meanwhile."""
        if not isinstance(error, BadAnswerError) or error.change != "shrink" or not task.pictures:
            return
        before = task.shrunk
        misfit = Misfit(pixels=pixels_of(task.pictures), overflow=error.overflow)
        largest = max(task.pictures, key=lambda picture: picture.width * picture.height)
        task.shrunk = Shrunk(
            endpoint=endpoint,
            misfit=misfit,
            before=before.before if before else (largest.width, largest.height),
            pixels=fitting_pixels(misfit, task.request, before.misfit if before else None),
            is_lasting=error.kind == "context" or error.overflow is not None,
        )
        if task.shrunk.is_lasting:
            self._limits.try_out(endpoint, task.question.run, task.shrunk.pixels)

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
        """The task has its result: an answer proves the size of its pictures, a failure proves nothing."""
        shrunk, question = task.shrunk, task.question.run
        if shrunk is None or not shrunk.is_lasting:
            return
        if not answered or task.endpoint is not shrunk.endpoint:
            self._limits.withdraw(shrunk.endpoint, question)
        elif self._limits.prove(shrunk.endpoint, question, shrunk.pixels):
            wide, high = shrunk.before
            each = shrunk.pixels // len(task.pictures)
            place, backend = shrunk.endpoint.place, shrunk.endpoint.identity.backend
            tell(
                self._notify,
                f"pictures of {wide}x{high} pixels do not fit into the context of {place}: from now on they "
                f"are sent with at most {each:,} pixels; {larger_context(backend)}",
            )


def larger_context(backend: str) -> str:
    """What the user can do for a larger context."""
    return LARGER.get(backend, USUAL_LARGER)
