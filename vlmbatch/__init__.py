"""Ask a vision model about every image in a folder.

``run_batch("photos", prompt="Describe this image", model="qwen2.5vl")`` is a run over folders, and
``open_session(model="qwen2.5vl")`` answers image by image. Both return values of the other names.
``create_app(model="qwen2.5vl")`` makes an HTTP service.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmbatch.batch import Batch, run_batch
    from vlmbatch.config import RunConfig
    from vlmbatch.errors import Busy, ImageFailed, SessionClosed, VlmbatchError, VlmbatchWarning
    from vlmbatch.events import Event
    from vlmbatch.observers.tracing import Tracing
    from vlmbatch.pipeline.question import Question
    from vlmbatch.pipeline.session import Session
    from vlmbatch.records import Completion, Failure, Result, Summary
    from vlmbatch.service.app import create_app
    from vlmbatch.sessions import SyncSession, open_session

__all__ = [
    "Batch",
    "Busy",
    "Completion",
    "Event",
    "Failure",
    "ImageFailed",
    "Question",
    "Result",
    "RunConfig",
    "Session",
    "SessionClosed",
    "Summary",
    "SyncSession",
    "Tracing",
    "VlmbatchError",
    "VlmbatchWarning",
    "create_app",
    "open_session",
    "run_batch",
]

_HOMES = {
    "Batch": "batch",
    "Busy": "errors",
    "Completion": "records",
    "Event": "events",
    "Failure": "records",
    "ImageFailed": "errors",
    "Question": "pipeline.question",
    "Result": "records",
    "RunConfig": "config",
    "Session": "pipeline.session",
    "SessionClosed": "errors",
    "Summary": "records",
    "SyncSession": "sessions",
    "Tracing": "observers.tracing",
    "VlmbatchError": "errors",
    "VlmbatchWarning": "errors",
    "create_app": "service.app",
    "open_session": "sessions",
    "run_batch": "batch",
}


def __dir__() -> list[str]:
    """All names, also those that are not imported yet, for help() and for the Tab key of a notebook."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562), so that `--help` stays fast."""
    if name in _HOMES:
        return getattr(import_module(f"vlmbatch.{_HOMES[name]}"), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("vlmbatch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
