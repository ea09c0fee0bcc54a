"""Says which images are done in an output, before the fingerprint of a run is known; it changes nothing."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlmbatch.config.masking import without_secrets
from vlmbatch.errors import FailureKind, OutputError
from vlmbatch.protocols import Finished
from vlmbatch.writers.append import reason
from vlmbatch.writers.resume import finished_by, read_contents, refuse_foreign
from vlmbatch.writers.run_log import RunLog


def done_before(
    path: str,
    settings: Mapping[str, Any],
    unknown: Collection[str],
    *,
    retry_failed: bool,
    again: frozenset[FailureKind],
) -> Finished | None:
    """The images that the newest run with these settings has done in the output at this path; blocks.

    The settings whose names are in `unknown` may have any value. None if the output has no such run.
    `retry_failed` and `again` are those of a JsonlWriter.

    Raises:
        ConfigError: the output, or FILE.runs next to it, does not belong to vlmbatch.
        OutputError: one of them cannot be read.
    """
    if not Path(path).is_file():  # a pipe would block
        return None
    try:
        refuse_foreign(path)
        run = _newest(path, without_secrets(json.loads(json.dumps(dict(settings)))), unknown)
        if run is None:
            return None
        return finished_by(read_contents(path, run, retry_failed=retry_failed, again=again).index)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {reason(error)}; name another file with --output") from error


def _newest(path: str, settings: Mapping[str, Any], unknown: Collection[str]) -> str | None:
    """The newest run in FILE.runs with these settings."""
    log = RunLog(path)
    log.open()
    log.close()
    wanted = _without(settings, unknown)
    return next((run for run in reversed(log.runs) if _without(log.runs[run], unknown) == wanted), None)


def _without(settings: Mapping[str, Any], unknown: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in unknown}
