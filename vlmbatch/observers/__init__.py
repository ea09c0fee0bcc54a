"""Observers that show the progress of a run on standard error: a bar, plain lines, or JSON events.

They receive events and nothing else; their output changes no record.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vlmbatch.observers.failures import FirstFailures
from vlmbatch.observers.format import (
    clean,
    clean_lines,
    duration,
    endpoint_lines,
    not_read,
    skipped_entries,
    summary_line,
)
from vlmbatch.observers.json_log import JsonLog

if TYPE_CHECKING:
    from vlmbatch.observers.bar import Bar
    from vlmbatch.observers.lines import Lines

__all__ = [
    "Bar",
    "FirstFailures",
    "JsonLog",
    "Lines",
    "clean",
    "clean_lines",
    "duration",
    "endpoint_lines",
    "not_read",
    "skipped_entries",
    "summary_line",
]

_NEED_RICH = {"Bar": "bar", "Lines": "lines"}


def __getattr__(name: str) -> object:
    """Import these classes on first use (PEP 562), since importing rich would delay a run in Python."""
    if name in _NEED_RICH:
        return getattr(import_module(f"vlmbatch.observers.{_NEED_RICH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
