"""What one check found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlmbatch.errors import ConfigError, TransientError, UnavailableError, VlmbatchError

Mark = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one check ended: `told` is what was found, `advice` what to do about it or with it.

    `endpoint` is the address that was looked at, None for what concerns this machine. `exit_code` is that of
    what is wrong, else 0. `figures` are the numbers in `told`, for programs.
    """

    check: str
    mark: Mark
    told: str
    advice: str | None = None
    endpoint: str | None = None
    exit_code: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


def wrong(check: str, error: VlmbatchError, *, endpoint: str | None = None) -> Finding:
    """The finding for an error, whose message holds what to do behind its first semicolon."""
    told, _, advice = str(error).partition("; ")
    passing = isinstance(error, (UnavailableError, TransientError))
    return Finding(
        check=check,
        mark="wrong",
        told=told,
        advice=advice or None,
        endpoint=endpoint,
        exit_code=UnavailableError.exit_code if passing else ConfigError.exit_code,
    )
