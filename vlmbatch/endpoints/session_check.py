"""Keeps the refused requests of one caller of a session from the other callers."""

import asyncio
import time
from collections.abc import Callable

from vlmbatch.backends.confirm import ANY_FLAW, MAX_TOKENS, QUESTION
from vlmbatch.config import RunConfig
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.canary import ORANGE
from vlmbatch.endpoints.refusal_check import OF_ANYTHING, OF_THE_CLIENT, RefusalCheck
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    UnavailableError,
)
from vlmbatch.imaging.prepare import uniform
from vlmbatch.protocols import Backend
from vlmbatch.records import Completion, Generation, Request

WELL_S = 5.0
"""An endpoint that has answered within this many seconds is well, and is not asked about it."""


class SessionCheck(RefusalCheck):
    """A backend that blames the request for a refusal, unless the endpoint refuses a question of its own.

    The requests of a session come from different callers, with options of their own. So a refusal, however
    final, proves nothing about the endpoint as long as it answers other requests. If it has not answered any
    for some seconds, it is asked a question of the session itself, with the options of the session.
    """

    def __init__(
        self, backend: Backend, config: RunConfig, bugs: Bugs, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` is in seconds; see RefusalCheck."""
        super().__init__(backend, config, bugs)
        given = config.generation
        options = Generation(temperature=given.temperature, num_ctx=given.num_ctx, thinking=False)
        self._own = Request(
            images=(uniform(ORANGE.rgb),),
            prompt=QUESTION,
            generation=options.brief(MAX_TOKENS),
            accept=ANY_FLAW,
        )
        self._clock = clock
        self._answered_at: float | None = None
        self._turn = asyncio.Lock()
        self._asks = 0
        self._own_refusal: BackendError | None = None

    async def _checked(self, request: Request) -> Completion:
        if request.accept >= ANY_FLAW:  # a question of vlmbatch itself
            return await super()._checked(request)
        known, answered_at = self._asks, self._answered_at
        try:
            return await self._sent(request)
        except BackendError as error:
            if not self._may_be_of_the_request(request, error):
                raise
            error.with_traceback(None)  # its frames hold the picture, as long as the next error lives
            if not isinstance(error, UnavailableError) and self._is_well:
                raise _of_the_request(error) from error
            async with self._turn:
                if self._asks == known and self._answered_at == answered_at:
                    self._own_refusal = await self._refusal_of_own()
                    self._asks += 1
                if self._own_refusal is not None and self._own_refusal.kind == error.kind:
                    raise self._of_the_endpoint(error) from error
        return await self._sent_again(request)

    async def _sent_again(self, request: Request) -> Completion:
        """The answer after one more try: the refusal passes if LM Studio had unloaded its model."""
        try:
            return await self._sent(request)
        except BackendError as error:
            if not self._may_be_of_the_request(request, error):
                raise
            raise _of_the_request(error) from error

    def _note_answer(self, request: Request) -> None:
        super()._note_answer(request)
        self._answered_at, self._own_refusal = self._clock(), None

    @property
    def _is_well(self) -> bool:
        return self._answered_at is not None and self._clock() - self._answered_at < WELL_S

    def _may_be_of_the_request(self, request: Request, error: BackendError) -> bool:
        """Whether the options of this request may be the reason of an error that concerns other requests."""
        if isinstance(error, UnavailableError):  # Ollama has no memory for a context of this size
            is_other = request.generation.num_ctx != self._own.generation.num_ctx
            return is_other and error.kind == "down" and bool(error.told)
        is_unclear = isinstance(error, RejectedError) and error.by_status
        return is_unclear or isinstance(error, FatalBackendError)

    async def _refusal_of_own(self) -> BackendError | None:
        """The error if the endpoint refuses the session's own question, too.

        Raises:
            UnavailableError: the endpoint is down or busy.
            TransientError: the question failed for a reason that may pass.
        """
        try:
            await self._sent(self._own)
        except BadAnswerError:
            return None
        except (FatalBackendError, RejectedError) as error:
            return error.with_traceback(None)
        return None

    def _of_the_endpoint(self, error: BackendError) -> BackendError:
        """The error of an endpoint that also refuses the session's own question."""
        has_answered = self._has_accepted_image and self._accepted is not None  # that question, too
        if not has_answered or error.kind not in (*OF_THE_CLIENT, OF_ANYTHING):
            return error
        told = f"{error}; it has answered before, and refuses every request now"
        return UnavailableError(told, kind=error.kind)


def _of_the_request(error: BackendError) -> RejectedError:
    """The error of a request that an endpoint refuses while it answers others."""
    if error.kind in OF_THE_CLIENT or isinstance(error, UnavailableError):
        told = f": {error.told}" if error.told else ""
        refused = f"the endpoint refuses this request, and answers others{told}"
        return RejectedError(refused if error.status is None else f"{refused} (HTTP {error.status})")
    return RejectedError(str(error), kind=error.kind)
