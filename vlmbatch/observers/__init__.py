"""Observers that tell a person how a run goes, on standard error: a bar, plain lines, or JSON events.

They hear events and nothing else; what they print changes no record.
"""

from vlmbatch.observers.bar import Bar
from vlmbatch.observers.format import clean, duration, endpoint_lines, summary_line
from vlmbatch.observers.json_log import JsonLog
from vlmbatch.observers.lines import Lines

__all__ = ["Bar", "JsonLog", "Lines", "clean", "duration", "endpoint_lines", "summary_line"]
