"""Decides by a question with a picture whether an endpoint can be used, if helper requests do not show it."""

from collections.abc import Callable

from vlmbatch.errors import (
    BackendError,
    BadAnswerError,
    FatalBackendError,
    RejectedError,
    TransientError,
    UnavailableError,
    UnreachableError,
)
from vlmbatch.imaging.prepare import uniform
from vlmbatch.protocols import Backend
from vlmbatch.records import Completion, Generation, Request

COLD = 3
"""The answer of a model that has to be loaded first may take this many times --timeout."""
_DECIDES = ("auth", "quota", "model_not_found", "no_vision", "wrong_url")
"""Refusals that concern every image; another one may concern only this question."""


async def confirm(
    backend: Backend, doubt: BackendError, tell: Callable[[str], None], *, timeout_s: float
) -> Completion | None:
    """Ask a question with a picture; returns if the endpoint answers, with None for an unusable answer.

    `doubt` is the reason for the question. `tell` gets it before, since the model may have to be loaded, for
    up to three times `timeout_s`.

    Raises:
        UnreachableError: no connection can be opened.
        UnavailableError: the question fails, too; the message has both reasons.
        FatalBackendError: the endpoint refuses every image.
    """
    tell(f"{doubt}; now a question with a picture decides")
    try:
        return await backend.complete(_question(COLD * timeout_s))
    except (RejectedError, BadAnswerError):
        return None
    except FatalBackendError as error:
        if error.kind not in _DECIDES:
            return None
        raise
    except UnreachableError:
        raise
    except (UnavailableError, TransientError) as error:
        both = f"{doubt}; a question with a picture fails, too: {error}"
        raise UnavailableError(both, kind=error.kind, retry_after=error.retry_after) from error


def _question(deadline_s: float) -> Request:
    return Request(
        images=(uniform((255, 140, 0)),),
        prompt="What colour fills this picture? Answer with one word.",
        generation=Generation(max_tokens=16, thinking=False),
        accept=frozenset(("length", "loop", "empty")),
        deadline_s=deadline_s,
    )
