"""Observers that show the progress of a run on standard error: a bar, plain lines, or JSON events.

They receive events and nothing else; their output changes no record.
"""

from vlmbatch.observers.bar import Bar
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
