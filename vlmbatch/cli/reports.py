"""The reports of a run for other programs: the summary file, the metrics file and traces."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from vlmbatch.config import RunConfig
from vlmbatch.errors import ConfigError, OutputError
from vlmbatch.events import Event, ImageFinished, RunFinished, RunStarted
from vlmbatch.records import Endpoint, Summary

HEAD_BYTES = 4096
OURS_IN_SUMMARY = b'"exit_code":'
OURS_IN_METRICS = b"vlmbatch_"


class Report(Protocol):
    """An observer that also receives the exit code of the run."""

    def __call__(self, event: Event) -> None:
        """Receive an event."""

    def end(self, exit_code: int, error: str | None) -> None:
        """Write the end of the run; raises OutputError if that fails."""


class SummaryFile:
    """Writes one JSON object at the end of the run; docs/unattended.md describes its fields."""

    def __init__(self, path: str, output: str) -> None:
        self._path = path
        self._output = output
        self._began = datetime.now(UTC)
        self._endpoint: Endpoint | None = None
        self._run: str | None = None
        self._summary: Summary | None = None
        self._kinds: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        """Receive an event."""
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
        """Write the whole file, or leave it unchanged.

        Raises:
            OutputError: the file cannot be written.
        """
        text = json.dumps(self._object(exit_code, error), indent=2) + "\n"
        try:
            replace_file(Path(self._path), text)
        except OSError as problem:
            raise OutputError(f"--summary {self._path} cannot be written: {problem.strerror}") from problem

    def _object(self, exit_code: int, error: str | None) -> dict[str, Any]:
        endpoint = self._endpoint
        counts = (
            dict.fromkeys(f.name for f in fields(Summary)) if self._summary is None else asdict(self._summary)
        )
        return {
            "v": 1,
            "exit_code": exit_code,
            "error": error,
            **counts,
            "failures": dict(self._kinds),
            "model": endpoint and endpoint.model,
            "backend": endpoint and endpoint.backend,
            "endpoint": endpoint and endpoint.url,
            "output": self._output,
            "run": self._run,
            "started_at": self._began.isoformat(timespec="seconds"),
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def open_reports(config: RunConfig, warn: Callable[[str], None]) -> Iterator[Report]:
    """Yield the reports that the options name; `warn` receives problems that do not end the run.

    Raises:
        ConfigError: a report could not be written to its path.
        MissingDependencyError: metrics or traces need a package that is not installed.
    """
    summary, metrics, output = config.display.summary, config.display.metrics_file, config.output.output
    if summary is not None:
        require_writable(summary, "--summary", {"--output": output}, OURS_IN_SUMMARY)
        yield SummaryFile(summary, output)
    if metrics is not None:
        from vlmbatch.observers.prometheus import MetricsFile  # an extra

        others = {"--output": output} | ({"--summary": summary} if summary else {})
        require_writable(metrics, "--metrics-file", others, OURS_IN_METRICS)
        if Path(metrics).exists() and not Path(metrics).is_file():
            raise ConfigError(f"--metrics-file {metrics} is a device or a pipe; name a file")
        yield MetricsFile(metrics, warn)
    if config.display.traces:
        from vlmbatch.observers.trace_export import TraceExport  # an extra

        yield TraceExport(warn)


def require_writable(path: str, flag: str, others: Mapping[str, str], ours: bytes) -> None:
    """Raise ConfigError unless the file can be written without replacing a file of another program.

    `others` are the files of other flags; `ours` is a text at the start of each earlier report.
    """
    try:
        _require_writable(path, flag, others, ours)
    except OSError as error:  # a name that is too long, a folder that was deleted
        raise ConfigError(f"{flag} {path} cannot be used: {error.strerror}") from error


def _require_writable(path: str, flag: str, others: Mapping[str, str], ours: bytes) -> None:
    here, folder = Path(path), Path(path).parent
    if path == "-":
        raise ConfigError(f"{flag} takes a file, not -; /dev/stderr and /dev/stdout are files")
    if here.is_dir():
        raise ConfigError(f"{flag} {path} is a folder; name a file in it")
    if not folder.is_dir():
        raise ConfigError(f"{flag} {path}: folder {folder} does not exist; create it with: mkdir -p {folder}")
    for other, taken in others.items():
        if here.resolve() in (
            Path(f"{Path(taken).resolve()}{end}") for end in ("", ".lock", ".lock.held", ".runs")
        ):
            raise ConfigError(f"{flag} and {other} both name {path}; give each a file of its own")
    if here.exists() and not here.is_file():
        return  # a device or a pipe
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{flag} {path}: no permission to create files in {folder}; name another folder")
    if here.is_file() and not _may_be_replaced(here, ours):
        raise ConfigError(
            f"{flag} {path} would replace a file that vlmbatch did not write; remove it, or name another file"
        )


def _may_be_replaced(path: Path, ours: bytes) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
    except OSError:  # an unreadable file is never replaced
        return False
    return not start or ours in start


def replace_file(path: Path, text: str) -> None:
    """Replace the content of the file, so that readers see either the old or the new content, never a part.

    For a link its target is replaced. A pipe, a device, or the target of /dev/stderr and the like is written
    to instead.

    Raises:
        OSError: the file cannot be written; its old content stays.
    """
    leads_to = path.readlink() if path.is_symlink() else path
    if any(str(place).startswith(("/dev/", "/proc/")) for place in (path, leads_to)) or (
        path.exists() and not path.is_file()
    ):
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
        return
    path = path.resolve()
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.unlink(missing_ok=True)  # from a killed process with the same number
        with new.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
