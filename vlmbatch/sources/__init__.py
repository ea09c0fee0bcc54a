"""Where images come from: each kind of source, and which one the PATHs of a command line mean."""

import sys
from collections.abc import Callable

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ConfigError
from vlmbatch.events import SourceProblem
from vlmbatch.protocols import Source
from vlmbatch.sources.directory import DirectorySource
from vlmbatch.sources.listing import ListSource

__all__ = ["DirectorySource", "ListSource", "open_source"]


def open_source(
    paths: tuple[str, ...], options: InputOptions, on_problem: Callable[[SourceProblem], None]
) -> Source:
    """The source that these PATHs name: ``-`` is a list on standard input, all else folders and files.

    `on_problem` hears of each folder that cannot be listed, on the thread that iterates.

    Raises:
        ConfigError: a PATH does not exist, or ``-`` stands beside others.
    """
    if "-" not in paths:
        return DirectorySource(paths, options, on_problem)
    if len(paths) > 1:
        raise ConfigError(
            "- (a list of paths on standard input) stands alone; leave out the other PATHs,"
            " or write ./- if a file has that name"
        )
    # None when the program was started with standard input closed
    if sys.stdin is None:
        raise ConfigError("standard input is closed; pipe a list of paths into this command or name a folder")
    return ListSource(sys.stdin.buffer, options, on_problem)
