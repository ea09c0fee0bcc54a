"""Walk folders of images and ask a vision model about each one.

``run_batch("photos", prompt="Describe this image")`` is the whole interface; the rest are its values.
"""

from importlib import metadata
from typing import TYPE_CHECKING

from vlmbatch.config import RunConfig
from vlmbatch.errors import VlmbatchError
from vlmbatch.records import Completion, Event, Failure, Result, Summary

if TYPE_CHECKING:
    from vlmbatch.batch import Batch, run_batch

__all__ = [
    "Batch",
    "Completion",
    "Event",
    "Failure",
    "Result",
    "RunConfig",
    "Summary",
    "VlmbatchError",
    "run_batch",
]


def __getattr__(name: str) -> object:
    """Load what is heavy on first use (PEP 562), so that `--help` stays quick."""
    if name in ("Batch", "run_batch"):
        from vlmbatch import batch

        return getattr(batch, name)
    if name == "__version__":
        return metadata.version("vlmbatch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
