"""The first failed images of a run, for the lines at its end."""

from vlmbatch.events import Event, ImageFinished, RunStarted

SHOWN_FAILURES = 5


class FirstFailures:
    """Receives the events of a run; afterwards it names the first failed images and their reasons."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._has_records = True

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        match event:
            case RunStarted(output=output):
                self._has_records = output is not None
            case ImageFinished(result=result) if result.failure is not None:
                if len(self._first) < SHOWN_FAILURES:
                    self._first.append(f"{result.id}: {result.failure.kind}: {result.failure.message}")
            case _:
                pass

    def lines(self, failed: int) -> list[str]:
        """The lines about the failures of this run; `failed` is their number."""
        shown = [f"  {line}" for line in self._first]
        if shown and failed > SHOWN_FAILURES:
            reasons = "; their records have the reasons" if self._has_records else ""
            shown.append(f"  and {failed - SHOWN_FAILURES} more{reasons}")
        return shown
