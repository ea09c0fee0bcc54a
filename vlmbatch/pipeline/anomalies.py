"""Anomalies: faults that many results of a run show together, and none of them alone."""

import re
from collections import deque
from collections.abc import Callable
from itertools import pairwise

from vlmbatch.backends.classify.blindness import admits_blindness
from vlmbatch.backends.classify.body import clean
from vlmbatch.endpoints.bugs import Bugs
from vlmbatch.errors import FailureKind, FatalBackendError, InternalError, UnavailableError
from vlmbatch.records import Failure, Result

SAME_FAILURES = 10
SAME_ANSWERS = 20
BLIND_ANSWERS = 10
RELOADS = 3
QUEUE_WINDOW = 20
ONE_AT_A_TIME = 1.15
SOME_WAIT = 1.8
"""A serial server works on at most ONE_AT_A_TIME requests on average, and has at least SOME_WAIT."""
MOST_IDLE = 0.6
"""Such a server works for at least this share of the time, since the next request always waits."""
OVERLAP = 0.2
MOST_OVERLAPS = 1
"""Of a window, at most this many answers overlap by more than OVERLAP of their work: times are not exact."""
WAY_ON = "correct the cause, and run the same command again"
MOST_HELD = 1000
"""At most this many results are held back; many may be about the same content."""

OF_THE_PICTURE: frozenset[FailureKind] = frozenset(
    (
        *("bad_image", "too_large", "bad_shape", "not_a_file", "vanished", "unreadable", "io_error"),
        "refused",
    )
)
"""Failures that concern a picture, however often they come."""
BUGS = 10
"""A run ends after this many images in a row for which vlmbatch itself failed."""
OF_THE_ENDPOINT: frozenset[FailureKind] = frozenset(
    ("timeout", "connection", "server_error", "crash", "busy", "down", "bad_response")
)


class SerialServer:
    """Finds an Ollama server that works on one request while other requests queue there.

    Over a window of answers of one server, the seconds of work are at most the time that passes, and nearly
    all of it; the seconds from request to answer are a multiple (Little's law). A server with several slots
    can look the same if requests take long on the way, but the work on its requests overlaps.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell: Callable[[str], None] | None = tell
        self._windows: dict[str, deque[Result]] = {}
        self._parallel: set[str] = set()

    def look_at(self, result: Result) -> None:
        """Look at an answer; report at most once."""
        done = result.completion
        if self._tell is None or done is None or not done.busy_s or result.endpoint.backend != "ollama":
            return
        server = result.endpoint.url
        window = self._windows.setdefault(server, deque(maxlen=QUEUE_WINDOW))
        window.append(result)
        if len(window) < QUEUE_WINDOW or server in self._parallel:
            return
        works = sorted((_end(each), _work_s(each)) for each in window)
        if _overlaps(works) > MOST_OVERLAPS:
            self._parallel.add(server)
            return
        elapsed_s = works[-1][0] - min(each.started_at.timestamp() for each in window)
        worked_s = sum(map(_work_s, window))
        there_s = sum(each.duration_s for each in window)
        is_serial = MOST_IDLE * elapsed_s <= worked_s <= ONE_AT_A_TIME * elapsed_s
        if is_serial and there_s >= SOME_WAIT * elapsed_s:
            self._tell(
                f"Ollama answers one request at a time, and {there_s / elapsed_s - 1:.0f} more wait; "
                "for more at once, start Ollama with OLLAMA_NUM_PARALLEL=4, which needs memory for four "
                "contexts (some models, such as qwen3-vl and llama vision, always answer one at a time)"
            )
            self._tell = None


class BlindAnswers:
    """Counts the answers in which the model says that it cannot see; a model may see at one endpoint only."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell: Callable[[str], None] | None = tell
        self._answers = 0
        self._blind = 0

    def look_at(self, text: str) -> None:
        """Look at an answer; report once if the model says so in half of the answers so far, or in ten."""
        if self._tell is None:
            return
        self._answers += 1
        if not admits_blindness(text):
            return
        self._blind += 1
        if 2 * self._blind >= self._answers or self._blind == BLIND_ANSWERS:
            shown = clean(text)
            self._tell(
                f"the model says that it cannot see images, in {self._blind} of {self._answers} answers "
                f"({shown if len(shown) <= 60 else f'{shown[:57]}...'}); check it with: vlmbatch doctor, or "
                "choose a vision model with --model"
            )
            self._tell = None


def _end(result: Result) -> float:
    return result.started_at.timestamp() + result.duration_s


def _work_s(result: Result) -> float:
    return result.completion.busy_s if result.completion else 0.0


def _overlaps(works: list[tuple[float, float]]) -> int:
    """How many answers were begun, by their seconds of work, well before the previous answer ended."""
    pairs = pairwise(works)
    return sum(end - work_s < before - OVERLAP * work_s for (before, _), (end, work_s) in pairs)


class SystemicFailures:
    """Looks at each result before it is written, and finds failures of the set-up.

    Results are held back as long as every image fails with the same words. Ten such failures and no answer
    mean that the set-up is wrong; then none of them is recorded.
    """

    def __init__(self, tell: Callable[[str], None], answered_before: Callable[[], bool], bugs: Bugs) -> None:
        """`tell` gets messages for the user; `answered_before` says whether earlier runs had answers; `bugs`
        has the traceback of the last bug."""
        self._tell = tell
        self._answered = False
        self._answered_before = answered_before
        self._held: list[Result] = []
        self._over = False
        self._last_answer: str | None = None
        self._same_answers = 0
        self._told_same = False
        self._reloads = 0
        self._queueing = SerialServer(tell)
        self._blind = BlindAnswers(tell)
        self._bugs = bugs
        self._bugs_in_a_row = 0

    def look_at(self, result: Result) -> list[Result]:
        """The results that may be written now.

        Raises:
            FatalBackendError: the endpoint refuses all images alike; the results held back are dropped.
            UnavailableError: the endpoint fails for all images alike; likewise.
            InternalError: vlmbatch failed for ten images in a row.
        """
        if self._over:
            return []
        self._count_bugs(result)
        if result.completion is not None and not result.is_known:
            self._look_at_answer(result.completion.text, result.completion.load_s)
            self._queueing.look_at(result)
            self._blind.look_at(result.completion.text)
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
        """The results that were held back and must be written after all."""
        held, self._held = self._held, []
        return [] if self._over else held

    def _count_bugs(self, result: Result) -> None:
        failure = result.failure
        if failure is not None and failure.kind == "internal":
            self._bugs_in_a_row += 1
        elif result.ok and not result.is_known:
            self._bugs_in_a_row = 0
        if failure is not None and self._bugs_in_a_row >= BUGS:
            raise InternalError(
                f"{BUGS} images in a row failed because of a bug in vlmbatch, so the run ends; "
                f"report this bug: {failure.message}\n{self._bugs.last_trace}"
            )

    def _look_at_answer(self, text: str, load_s: float) -> None:
        text = " ".join(text.split())
        self._same_answers = self._same_answers + 1 if text == self._last_answer else 1
        self._last_answer = text
        if self._same_answers == SAME_ANSWERS and not self._told_same:
            self._told_same = True
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            self._tell(
                f"{SAME_ANSWERS} images in a row have the same answer ({shown}); "
                "unless the prompt asks for labels, check whether the model sees the pictures"
            )
        self._reloads += load_s > 0
        if load_s > 0 and self._reloads == RELOADS:
            self._tell(
                f"the model was loaded again for {RELOADS} answers so far, {load_s:.1f} s the last time; "
                "set a longer --keep-alive, or stop other programs that use it with other options"
            )


def _may_be_the_set_up(failure: Failure | None) -> bool:
    """Whether a failure may come from the endpoint or the options, not from the picture."""
    return failure is not None and failure.kind not in OF_THE_PICTURE and failure.kind != "internal"


def _likeness(result: Result) -> tuple[str, str]:
    """Equal for two failures with the same cause; numbers in messages differ from image to image."""
    failure = result.failure
    return ("", "") if failure is None else (failure.kind, re.sub(r"\d+", "0", failure.message))


def _all_alike(failure: Failure | None) -> FatalBackendError | UnavailableError:
    message = failure.message if failure else ""
    if failure and failure.kind in OF_THE_ENDPOINT:
        return UnavailableError(
            f"the first {SAME_FAILURES} images failed with the same message, so the cause is the "
            f"endpoint: {message}; these images have no records; {WAY_ON}",
            kind=failure.kind,
        )
    return FatalBackendError(
        f"the endpoint refused the first {SAME_FAILURES} images with the same message, so the "
        f"set-up is wrong: {message}; these images have no records; {WAY_ON}",
        kind=failure.kind if failure else None,
    )
