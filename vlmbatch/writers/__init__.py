"""Writers of results: to a JSONL file that a later run reads back, or to standard output."""

from vlmbatch.writers.jsonl import JsonlWriter
from vlmbatch.writers.stream import StreamWriter

__all__ = ["JsonlWriter", "StreamWriter"]
