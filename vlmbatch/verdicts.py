"""What the results of a run tell together that none of them tells alone."""

import re
from collections.abc import Callable

from vlmbatch.errors import FailureKind, FatalBackendError, UnavailableError
from vlmbatch.records import Failure, Result

SAME_FAILURES = 10
SAME_ANSWERS = 20
RELOADS = 3
MOST_HELD = 1000
"""Results that are held back, many of which may be about the same content."""

OF_THE_PICTURE: frozenset[FailureKind] = frozenset(
    (
        *("bad_image", "too_large", "bad_shape", "not_a_file", "vanished", "unreadable", "io_error"),
        "refused",
    )
)
"""Failures that say something about a picture, however often they come."""
OF_THE_ENDPOINT: frozenset[FailureKind] = frozenset(
    ("timeout", "connection", "server_error", "crash", "busy", "down", "bad_response")
)


class Verdicts:
    """Looks at each result before it is written.

    As long as every image was refused with the same words, the results are held back: ten of them and
    no answer mean that the set-up is wrong, and then none of them is an image's own failure.
    """

    def __init__(self, tell: Callable[[str], None], answered_before: Callable[[], bool]) -> None:
        """`tell` hears what a person should know; `answered_before` whether earlier runs had answers."""
        self._tell = tell
        self._answered = False
        self._answered_before = answered_before
        self._held: list[Result] = []
        self._over = False
        self._last_answer: str | None = None
        self._same_answers = 0
        self._reloads = 0

    def look_at(self, result: Result) -> list[Result]:
        """The results that may be written now.

        Raises:
            FatalBackendError: the endpoint refuses all images alike; those held back are dropped.
            UnavailableError: it fails over all images alike; likewise.
        """
        if self._over:
            return []
        if result.completion is not None and not result.is_known:
            self._look_at_answer(result.completion.text, result.completion.load_s)
        if self._answered or not _may_be_the_set_up(result.failure):
            self._answered = self._answered or (result.ok and not result.is_known)
            return [*self.rest(), result]
        if self._held and _likeness(self._held[-1]) != _likeness(result):
            return [*self.rest(), result]
        self._held.append(result)
        contents = {held.image.sha256 or held.id for held in self._held}
        if len(contents) < SAME_FAILURES and len(self._held) < MOST_HELD:
            return []
        if self._answered_before() or len(contents) < SAME_FAILURES:
            return self.rest()
        self._over = True
        raise _all_alike(result.failure)

    def rest(self) -> list[Result]:
        """What was held back and has to be written after all."""
        held, self._held = self._held, []
        return [] if self._over else held

    def _look_at_answer(self, text: str, load_s: float) -> None:
        text = " ".join(text.split())
        self._same_answers = self._same_answers + 1 if text == self._last_answer else 1
        self._last_answer = text
        if self._same_answers == SAME_ANSWERS:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            self._tell(
                f"{SAME_ANSWERS} images in a row got the same answer ({shown}); "
                "if the prompt does not ask for labels, look whether the model sees the pictures"
            )
        self._reloads += load_s > 0
        if load_s > 0 and self._reloads == RELOADS:
            self._tell(
                f"the model was loaded anew for {RELOADS} answers so far, {load_s:.1f} s the last time; does "
                "another program use it with other options, or is --keep-alive too short?"
            )


def _may_be_the_set_up(failure: Failure | None) -> bool:
    """Whether a failure is the endpoint's, and not plainly about the picture."""
    return failure is not None and failure.kind not in OF_THE_PICTURE


def _likeness(result: Result) -> tuple[str, str]:
    """What two failures have in common when they have the same cause; numbers differ from image to image."""
    failure = result.failure
    return ("", "") if failure is None else (failure.kind, re.sub(r"\d+", "0", failure.message))


def _all_alike(failure: Failure | None) -> FatalBackendError | UnavailableError:
    message = failure.message if failure else ""
    if failure and failure.kind in OF_THE_ENDPOINT:
        return UnavailableError(
            f"the first {SAME_FAILURES} images all failed alike, so it is the endpoint: {message}; "
            "they are not recorded",
            kind=failure.kind,
        )
    return FatalBackendError(
        f"the endpoint refused the first {SAME_FAILURES} images alike, so it is the set-up: {message}; "
        "they are not recorded",
        kind=failure.kind if failure else None,
    )
