"""Walk folders of images and ask a vision model about each one.

``run_batch("photos", prompt="Describe this image")`` is the whole interface; the rest are its values.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmbatch.batch import Batch, run_batch
    from vlmbatch.config import RunConfig
    from vlmbatch.errors import VlmbatchError
    from vlmbatch.events import Event
    from vlmbatch.records import Completion, Failure, Result, Summary

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

_HOMES = {
    "Batch": "batch",
    "Completion": "records",
    "Event": "events",
    "Failure": "records",
    "Result": "records",
    "RunConfig": "config",
    "Summary": "records",
    "VlmbatchError": "errors",
    "run_batch": "batch",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562), so that `--help` stays quick."""
    if name in _HOMES:
        return getattr(import_module(f"vlmbatch.{_HOMES[name]}"), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("vlmbatch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
