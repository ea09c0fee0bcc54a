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

QUESTION = "What colour fills this picture? Answer with one word."
MAX_TOKENS = 16
ORANGE = (255, 140, 0)
"""Red, green and blue of a colour that a model is unlikely to guess."""
ANY_FLAW = frozenset(("length", "loop", "empty"))
"""The flaws to accept in an answer whose text does not matter."""
MODEL_LOAD_S = 300.0
"""An engine may take this long to load its model; Ollama gives up a load without progress after it."""
_DECIDES = ("auth", "quota", "model_not_found", "no_vision", "wrong_url")
"""Refusals that concern every image; another one may concern only this question."""


def cold_s(timeout_s: float) -> float:
    """The time limit in seconds of a request that may have to load the model first."""
    return MODEL_LOAD_S + timeout_s


async def confirm(
    backend: Backend, doubt: BackendError, tell: Callable[[str], None], *, timeout_s: float
) -> Completion | None:
    """Ask a question with a picture; returns if the endpoint answers, with None for an unusable answer.

    `doubt` is the reason for the question. `tell` gets it before the question, which may load the model.
    `timeout_s` is the time limit of an answer in seconds.

    Raises:
        UnreachableError: no connection can be opened.
        UnavailableError: the question fails, too; the message has both reasons.
        FatalBackendError: the endpoint refuses every image.
    """
    tell(f"{doubt}; vlmbatch tests it with a picture")
    try:
        return await backend.complete(_question(cold_s(timeout_s)))
    except (RejectedError, BadAnswerError):
        return None
    except FatalBackendError as error:
        if error.kind not in _DECIDES:
            return None
        raise
    except UnreachableError:
        raise
    except (UnavailableError, TransientError) as error:
        both = f"{doubt}; the test with a picture failed, too: {error}"
        raise UnavailableError(both, kind=error.kind, retry_after=error.retry_after) from error


def _question(deadline_s: float) -> Request:
    return Request(
        images=(uniform(ORANGE),),
        prompt=QUESTION,
        generation=Generation(max_tokens=MAX_TOKENS, thinking=False),
        accept=ANY_FLAW,
        deadline_s=deadline_s,
    )
