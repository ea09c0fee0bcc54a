"""Asks an endpoint about another picture, to learn whether it refuses one image or every request."""

import asyncio
from dataclasses import replace
from typing import NamedTuple

from vlmbatch.backends.classify.refusals import named
from vlmbatch.backends.confirm import ANY_FLAW, MAX_TOKENS, QUESTION
from vlmbatch.config import RunConfig
from vlmbatch.config.given import given_options
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.endpoints.canary import ORANGE, PURPLE
from vlmbatch.endpoints.crash_history import CrashHistory
from vlmbatch.endpoints.guard import GuardedBackend
from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FailureKind,
    FatalBackendError,
    RefusedOptionError,
    RejectedError,
    TransientError,
    UnavailableError,
)
from vlmbatch.imaging.prepare import uniform
from vlmbatch.protocols import Backend
from vlmbatch.records import Completion, Request

OF_THE_CLIENT: frozenset[FailureKind] = frozenset(("auth", "wrong_url", "model_not_found"))
"""Before the first answer such a refusal is a wrong set-up; later it may pass, or concern one picture."""
OF_ANYTHING: FailureKind = "rejected"
"""Such a refusal may concern every picture: LM Studio sends 400 "Model unloaded"."""
OF_THE_OPTIONS: frozenset[FailureKind] = frozenset(("bad_config", "no_vision"))
SILENT = 503
"""With this status and without a text, a server is down or busy."""
MOST_PROOFS = 3
"""The endpoint is not asked again if it has accepted a refused option with another picture this often."""
MANY_IN_A_ROW = 5
"""If the endpoint refuses this many images in a row, the next run tries them again."""


class Refusal(NamedTuple):
    """The values in which two refusals must agree. Their texts may differ: they may have a request number."""

    kind: FailureKind
    status: int | None
    option: str
    """The option of the user that the refusal names; empty if it names none."""


class RefusalCheck(GuardedBackend):
    """A backend that turns a doubtful refusal into a failure of the image, an outage, or a wrong set-up.

    A refusal is doubtful if it names an option of the user, or if the endpoint has answered before and the
    refusal would be a wrong set-up, or has no words that are known. Then the endpoint is asked about another
    picture.
    """

    def __init__(self, backend: Backend, config: RunConfig, bugs: Bugs) -> None:
        """`config` has the options that a refusal may name; for `bugs` see GuardedBackend."""
        super().__init__(bugs, config.endpoint.model)
        self._backend = backend
        self._given = given_options(config)
        self._file_urls = config.request.file_urls
        self._has_answered = False
        self._has_accepted_image = False
        self._accepted: Request | None = None
        """The first question of vlmbatch itself that was answered, without its picture."""
        self._refused_in_a_row = 0
        self._proofs = 0
        self._asking = asyncio.Lock()
        self._checks = 0
        self._last: tuple[tuple[Refusal, str], bool] | None = None
        self._in_flight = 0

    @property
    def inner(self) -> Backend:
        """See ForwardingBackend."""
        return self._backend

    async def complete(self, request: Request) -> Completion:
        """Send one request; see protocols.Backend. After a doubtful refusal, ask about another picture.

        A 503 without a text means down, or busy if other requests are in flight at an endpoint that answers.

        Raises:
            FatalBackendError: the endpoint refuses the prompt or the options with any picture.
            UnavailableError: the endpoint has answered before, and now refuses every request.
            RejectedError: the endpoint refuses only this picture.
            BackendError: any other error of the request, or of the question about another picture.
        """
        with self.border():
            return self.shown(await self._checked(request))

    async def _checked(self, request: Request) -> Completion:
        try:
            return await self._sent(request)
        except (FatalBackendError, RejectedError, TransientError) as error:
            refusal = self._refusal(error)
            if refusal is None or not self._can_ask(request):
                raise
            error.with_traceback(None)  # its frames hold the picture, as long as the next error lives
            of_the_client = refusal.kind in OF_THE_CLIENT and (self._has_accepted_image or not refusal.option)
            if of_the_client or (refusal.kind == OF_ANYTHING and not refusal.option):
                return await self._after_answers(request, error, refusal)
            if await self._refuses_the_options(request, refusal):
                raise _of_the_option(error, refusal) from error
            if isinstance(error, TransientError):
                raise
            raise _of_the_picture(error, retryable=True) from error

    async def _sent(self, request: Request) -> Completion:
        self._in_flight += 1
        try:
            completion = await self._backend.complete(request)
        except BadAnswerError:
            self._note_answer(request)
            raise
        except UnavailableError as error:
            if error.status == SILENT and not error.told and self._has_accepted_image and self._in_flight > 1:
                raise UnavailableError(str(error), kind="busy", retry_after=error.retry_after) from error
            raise
        finally:
            self._in_flight -= 1
        self._note_answer(request)
        return completion

    def _note_answer(self, request: Request) -> None:
        self._has_answered = True
        if not request.accept >= ANY_FLAW:
            self._has_accepted_image, self._refused_in_a_row = True, 0
        elif request.images and self._accepted is None:
            self._accepted = replace(request, images=())

    def _can_ask(self, request: Request) -> bool:
        """Whether another picture can take the place of those of the request: none has a file:// URL."""
        return bool(request.images) and not (self._file_urls and any(p.file for p in request.images))

    def _refusal(self, error: BackendError) -> Refusal | None:
        """The refusal in this error if it is doubtful."""
        if error.status is None:  # an error of this machine, or of the connection
            return None
        option = self._named_option(error)
        if isinstance(error, FatalBackendError):
            of_the_client = error.kind in OF_THE_CLIENT and (self._has_answered or bool(option))
            doubtful = error.kind in OF_THE_OPTIONS or of_the_client
        else:
            failed = error.kind in ("server_error", "bad_response") and error.status in (200, 409, 500)
            may_be_unwell = self._accepted is not None and error.by_status and error.kind == OF_ANYTHING
            doubtful = may_be_unwell or (bool(option) and (error.kind == OF_ANYTHING or failed))
        return Refusal(error.kind, error.status, option) if doubtful else None

    def _named_option(self, error: BackendError) -> str:
        sentence = " ".join((error.told, *error.marks))
        return next((option.shown for option in self._given if named(sentence, option.names)), "")

    async def _refuses_the_options(self, request: Request, refusal: Refusal) -> bool:
        """Whether the endpoint refuses the options with any picture; it is asked only a few times."""
        if self._proofs < MOST_PROOFS and await self._refuses(refusal, _other(request)):
            return True
        self._proofs += 1
        return False

    async def _after_answers(self, request: Request, error: BackendError, refusal: Refusal) -> Completion:
        """Raise the error that this refusal means after answers, or return the answer of another try."""
        of_anything = refusal.kind == OF_ANYTHING
        # not with the options of this request: a retry may have changed them, which the endpoint may refuse
        if of_anything and self._accepted is not None:
            question = replace(self._accepted, images=(uniform(ORANGE.rgb),))
        else:
            question = _briefly(_other(request))
        if await self._refuses(refusal, question):
            if of_anything or self._has_accepted_image or await self._refuses(refusal, _unrelated(request)):
                told = f"{error}; it has answered before, and refuses every request now"
                raise UnavailableError(told, kind=error.kind) from error
            raise error  # it answers, but not this prompt
        try:
            return await self._backend.complete(request)
        except (FatalBackendError, RejectedError) as again:
            if self._refusal(again) != refusal:
                raise
            again.with_traceback(None)
            self._refused_in_a_row += 1
            many = self._refused_in_a_row >= MANY_IN_A_ROW
            raise _of_the_picture(again, retryable=many) from again

    async def _refuses(self, refusal: Refusal, question: Request) -> bool:
        """Whether the endpoint refuses this question, too. Images in flight share one check.

        Raises:
            UnavailableError: the endpoint is down or busy.
            TransientError: the question failed for a reason that may pass.
        """
        known, matter = self._checks, (refusal, question.prompt)
        async with self._asking:
            if self._checks != known and self._last is not None and self._last[0] == matter:
                return self._last[1]
            is_refused = await self._is_refused(refusal, question)
            self._checks += 1
            self._last = matter, is_refused
            return is_refused

    async def _is_refused(self, refusal: Refusal, question: Request) -> bool:
        try:
            await self._backend.complete(question)
        except UnavailableError:
            raise
        except BackendError as error:
            if self._refusal(error) == refusal:
                return True
            if isinstance(error, TransientError):
                raise
        return False


async def check_unavailable(
    crashes: CrashHistory, backend: Backend, request: Request, error: UnavailableError
) -> None:
    """Count that the endpoint was busy or down for this request.

    If the request was the only one at the endpoint then, ask about another picture.

    Raises:
        RejectedError: the endpoint has answered others several times, but not this image.
    """
    if not crashes.unavailable() or not await _answers_others(backend, request):
        return
    if crashes.others_answered():
        error.with_traceback(None)  # its frames hold the picture, as long as the new error lives
        raise RejectedError(
            f"{error}; the endpoint was busy or down for this image {crashes.waits} times, also without "
            "other requests, but answered about another picture; the next run tries this image again",
            kind=error.kind,
            retryable=True,
        ) from error


async def _answers_others(backend: Backend, request: Request) -> bool:
    """Whether the endpoint answers a short question about another picture, with these options."""
    try:
        await backend.complete(_unrelated(request))
    except (RejectedError, BadAnswerError):
        return True
    except BackendError:
        return False
    return True


def _other(request: Request) -> Request:
    """The same request about a small picture of one colour."""
    return replace(request, images=(uniform(PURPLE.rgb),) * len(request.images), accept=ANY_FLAW)


def _briefly(request: Request) -> Request:
    """This request with a short answer, which costs little."""
    return replace(request, generation=request.generation.brief(MAX_TOKENS))


def _unrelated(request: Request) -> Request:
    """The canary's question with the options of this request that it has, too."""
    generation = replace(request.generation, schema=None, logprobs=None)
    question = replace(request, images=(uniform(ORANGE.rgb),), prompt=QUESTION, system=None, accept=ANY_FLAW)
    return _briefly(replace(question, generation=generation))


def _of_the_option(error: BackendError, refusal: Refusal) -> FatalBackendError:
    """The error for options that the endpoint refuses with any picture."""
    if not refusal.option:
        return FatalBackendError(str(error), kind=error.kind)
    return RefusedOptionError(
        f"the endpoint does not accept {refusal.option}: {error.told} (HTTP {error.status}); change it or "
        "leave it out, and run the command again",
        kind="bad_config",
    )


def _of_the_picture(error: BackendError, *, retryable: bool) -> RejectedError:
    """The error for an image that the endpoint refuses, although it accepts others."""
    told = f": {error.told}" if error.told else ""
    refused = RejectedError(
        f"the endpoint refuses this image, and accepts another one{told} (HTTP {error.status})",
        retryable=retryable,
    )
    refused.by_status = error.by_status
    return refused
