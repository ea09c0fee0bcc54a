"""What a run leaves for other programs beside its records: its summary and its metrics, each in a file."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, OutputError
from vlmbatch.events import Event, ImageFinished, RunFinished, RunStarted
from vlmbatch.records import Endpoint, Summary


class Report(Protocol):
    """An observer that is told in the end how the run ended."""

    def __call__(self, event: Event) -> None:
        """Hear an event."""

    def end(self, exit_code: int, error: str | None) -> None:
        """The run is over; raises OutputError where that cannot be written."""


class SummaryFile:
    """Writes one JSON object when the run has ended; docs/records.md names its fields."""

    def __init__(self, path: str, output: str) -> None:
        self._path = path
        self._output = output
        self._began = datetime.now(UTC)
        self._endpoint: Endpoint | None = None
        self._run: str | None = None
        self._summary: Summary | None = None
        self._kinds: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        match event:
            case RunStarted(endpoint=endpoint, run=run):
                self._endpoint, self._run = endpoint, run
            case ImageFinished(result=result) if result.failure is not None:
                self._kinds[result.failure.kind] += 1
            case RunFinished(summary=summary):
                self._summary = summary
            case _:
                pass

    def end(self, exit_code: int, error: str | None) -> None:
        """Write it, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(self._told(exit_code, error), indent=2) + "\n"
        try:
            replace_file(Path(self._path), text)
        except OSError as problem:
            raise OutputError(f"--summary {self._path} cannot be written: {problem.strerror}") from problem

    def _told(self, exit_code: int, error: str | None) -> dict[str, Any]:
        here = self._endpoint
        counts = (
            dict.fromkeys(f.name for f in fields(Summary)) if self._summary is None else asdict(self._summary)
        )
        return {
            "v": 1,
            "exit_code": exit_code,
            "error": error,
            **counts,
            "failures": dict(self._kinds),
            "model": here and here.model,
            "backend": here and here.backend,
            "endpoint": here and here.url,
            "output": self._output,
            "run": self._run,
            "started_at": self._began.isoformat(timespec="seconds"),
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def open_reports(config: RunConfig, tell: Callable[[str], None]) -> list[Report]:
    """The reports that the options ask for; `tell` hears of trouble with one that does not end the run.

    Raises:
        ConfigError: one could never be written.
        MissingDependencyError: metrics need a package that is not installed.
    """
    display, found = config.display, list[Report]()
    if display.summary is not None:
        require_writable(display.summary, "--summary", config.output.output)
        found.append(SummaryFile(display.summary, config.output.output))
    if display.metrics_file is not None:
        from vlmbatch.metrics import MetricsFile  # an extra

        require_writable(display.metrics_file, "--metrics-file", config.output.output)
        if Path(display.metrics_file).exists() and not Path(display.metrics_file).is_file():
            raise ConfigError(f"--metrics-file {display.metrics_file} is a device or a pipe; name a file")
        found.append(MetricsFile(display.metrics_file, tell))
    return found


def require_writable(path: str, flag: str, output: str) -> None:
    """Raise ConfigError unless a file can be put there that is not the `output`."""
    folder = Path(path).parent
    if Path(path).is_dir():
        raise ConfigError(f"{flag} {path} is a folder; name a file in it")
    if not folder.is_dir():
        raise ConfigError(f"{flag} {path}: there is no folder {folder}; make it with: mkdir -p {folder}")
    if Path(path).resolve() == Path(output).resolve():
        raise ConfigError(f"{flag} and --output both name {path}; give each a file of its own")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{flag} {path}: files in {folder} may not be made; name another folder")


def replace_file(path: Path, text: str) -> None:
    """Put the text there, such that readers meet the old content or the new one, and never a part.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
        path.write_text(text)
        return
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with new.open("x") as file:
            file.write(text)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
