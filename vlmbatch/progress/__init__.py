"""Observers that tell a person how a run goes, on standard error: a bar, plain lines, or JSON events.

They hear events and nothing else; what they print changes no record.
"""

from vlmbatch.progress.bar import Bar
from vlmbatch.progress.json_log import JsonLog
from vlmbatch.progress.telling import Lines
from vlmbatch.progress.wording import clean, duration, endpoint_lines, summary_line

__all__ = ["Bar", "JsonLog", "Lines", "clean", "duration", "endpoint_lines", "summary_line"]
