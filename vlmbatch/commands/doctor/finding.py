"""The finding of one check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlmbatch.errors import ConfigError, TransientError, UnavailableError, VlmbatchError

Mark = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check: `told` says what was found, `advice` what to do.

    `endpoint` is the URL of the checked endpoint, None for a check of this machine. `exit_code` is 0 unless
    the mark is `wrong`. `figures` are the numbers in `told`, for programs.
    """

    check: str
    mark: Mark
    told: str
    advice: str | None = None
    endpoint: str | None = None
    exit_code: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


def wrong(check: str, error: VlmbatchError, *, endpoint: str | None = None) -> Finding:
    """Make the finding for an error; the text after the first semicolon of its message is the advice."""
    told, _, advice = str(error).partition("; ")
    temporary = isinstance(error, (UnavailableError, TransientError))
    return Finding(
        check=check,
        mark="wrong",
        told=told,
        advice=advice or None,
        endpoint=endpoint,
        exit_code=UnavailableError.exit_code if temporary else ConfigError.exit_code,
    )
