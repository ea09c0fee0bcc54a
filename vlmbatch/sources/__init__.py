"""The kinds of source, and the choice of one by the PATHs of the command line."""

import sys
from collections.abc import Callable, Sequence

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ConfigError
from vlmbatch.events import SourceProblem
from vlmbatch.protocols import Source
from vlmbatch.sources.directory import DirectorySource
from vlmbatch.sources.in_memory import InMemoryImage
from vlmbatch.sources.listing import ListSource
from vlmbatch.sources.own_files import OwnFiles

__all__ = ["DirectorySource", "ListSource", "OwnFiles", "open_source"]


def open_source(
    paths: tuple[str, ...],
    options: InputOptions,
    on_problem: Callable[[SourceProblem], None],
    own: OwnFiles | None = None,
    in_memory: Sequence[InMemoryImage] = (),
) -> Source:
    """The source for these PATHs: ``-`` is a list on standard input, anything else is a folder or a file.

    `on_problem` receives each folder that cannot be listed, on the thread that iterates. The files in `own`
    are left out. The images `in_memory` come before those of the PATHs.

    Raises:
        ConfigError: a PATH does not exist, or ``-`` is combined with other PATHs.
    """
    if "-" not in paths:
        return DirectorySource(paths, options, on_problem, own, in_memory)
    if len(paths) > 1:
        raise ConfigError(
            "- (a list of paths on standard input) cannot be combined with other PATHs; leave them out,"
            " or write ./- for a file named -"
        )
    # None if the program was started with standard input closed
    if sys.stdin is None:
        raise ConfigError("standard input is closed; pipe a list of paths into this command or name a folder")
    return ListSource(sys.stdin.buffer, options, on_problem, own, in_memory)
