"""One event of each kind, with text that must not reach a terminal unchanged."""

from written_results import ENDPOINT, RUN, answered, failed

from vlmbatch.errors import UnavailableError
from vlmbatch.events import (
    AskStep,
    BugFound,
    ConcurrencyChanged,
    EndpointPaused,
    EndpointProven,
    EndpointResumed,
    Event,
    ImageFinished,
    ImagesSkipped,
    ImageTraced,
    Notice,
    PreflightDelayed,
    QueueMeasured,
    RetryScheduled,
    RunFinished,
    RunStarted,
    RunStopping,
    SourceProblem,
    Step,
    TotalKnown,
)
from vlmbatch.records import Completion, Generation, Summary

HOSTILE = "x\x1b[31mred\x1b]0;title\x07\x1b[2J\r\n\x9b1m\udcff\u202e"
"""Colours, a window title, a cleared screen, line ends, a C1 sequence, a byte of no UTF-8, right to left."""

STARTED = RunStarted(endpoint=ENDPOINT, run=RUN, concurrency=4, output="o.jsonl")
PAUSED = EndpointPaused(message="no connection", give_up_s=900)
RESUMED = EndpointResumed(paused_s=3.2)
RETRY = RetryScheduled(id=HOSTILE, attempt=1, delay_s=1.5, kind="timeout", message="no answer within 300 s")
ANSWERED = ImageFinished(result=answered("good.jpg", "the answer"))
FAILED = ImageFinished(result=failed(HOSTILE))
TRACED = ImageTraced(
    id=HOSTILE,
    start_ns=1,
    end_ns=4,
    steps=(
        Step(name="prepare", start_ns=1, end_ns=2),
        AskStep(
            name="ask",
            start_ns=2,
            end_ns=3,
            endpoint=ENDPOINT,
            generation=Generation(seed=7, schema="{}"),
            attempt=1,
            completion=Completion(text="the answer", model=HOSTILE, finish_reason=HOSTILE),
        ),
    ),
    result=answered(HOSTILE, "the answer"),
    error=None,
)

EVENTS: tuple[Event, ...] = (
    PreflightDelayed(endpoint=ENDPOINT.url, message=f"loading {HOSTILE}"),
    STARTED,
    Notice(message=f"a note {HOSTILE}"),
    BugFound(message=f"a bug {HOSTILE}", trace=f"Traceback\n{HOSTILE}"),
    TotalKnown(total=10),
    ImagesSkipped(skipped=3),
    ConcurrencyChanged(concurrency=8),
    QueueMeasured(endpoint=ENDPOINT.url, running=4, waiting=2),
    SourceProblem(path=HOSTILE, message="permission denied"),
    RETRY,
    EndpointProven(),
    PAUSED,
    RESUMED,
    TRACED,
    ANSWERED,
    FAILED,
    RunStopping(drain_s=30, error=UnavailableError(f"away {HOSTILE}")),
    RunFinished(summary=Summary(total=5, succeeded=1, failed=1, skipped=3, duration_s=2.0)),
)
