"""The files that a run writes itself: they do not count as images, whatever their names are."""

import os
from collections.abc import Iterable

from vlmbatch.config import RunConfig


class OwnFiles:
    """The files at these paths, which need not exist yet. `endings` are their names in lower case."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._paths = tuple(paths)
        places = {place for path in self._paths for place in (path, _target(path))}
        self.endings = tuple(os.path.basename(place).lower() for place in places)  # noqa: PTH119  # text only

    @classmethod
    def of(cls, config: RunConfig) -> "OwnFiles":
        """Those of a run with these options."""
        paths = (config.output.output, config.display.summary, config.display.metrics_file)
        return cls("/dev/stdout" if path == "-" else path for path in paths if path is not None)

    def __contains__(self, path: str) -> bool:
        return path.lower().endswith(self.endings) and any(_is_same(path, own) for own in self._paths)


def _target(path: str) -> str:
    """The path without links; itself if the current folder has been deleted."""
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        return path


def _is_same(path: str, own: str) -> bool:
    try:
        return os.path.samefile(path, own)  # noqa: PTH121  # a Path costs more than the call
    except (OSError, ValueError):  # one of them does not exist; a NUL in the path
        return False
