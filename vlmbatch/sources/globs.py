"""Selects images by --include and --exclude; works on paths as text only."""

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import PurePosixPath

from vlmbatch.config.groups import InputOptions

_NEEDLESS = re.compile("/[./]")
"""Parts of a path that `normalise` may have to change; also names that begin with a dot."""
_Glob = tuple[bool, re.Pattern[str]]


def normalise(path: str) -> str:
    """The id of a path: without ``./`` and needless slashes; ``..`` and links stay as typed.

    On Windows it has slashes, too.
    """
    if os.sep == "/" and path and path[0] != "." and path[-1] != "/" and not _NEEDLESS.search(path):
        return path  # the quick way, since a list may have a million paths
    return str(PurePosixPath(path.replace(os.sep, "/")))


def start_below(folder: str) -> str:
    """The start of the ids of all entries below a folder with this id."""
    return "" if folder == "." else folder.rstrip("/") + "/"


class Globs:
    """The globs of --include and --exclude, case-sensitive.

    A glob with a slash is matched against the whole id, one without against the name alone, at any depth.
    ``*`` also matches slashes, so that ``photos/*.jpg`` reaches every depth; ``**/`` also matches
    nothing, so that ``**/thumbs/*`` matches ``thumbs/a.jpg``. An excluded folder is not listed.
    """

    def __init__(self, options: InputOptions) -> None:
        self._include = _compile(options.include)
        self._exclude = _compile(options.exclude)
        # a folder path that matches "thumbs/*" with an empty star has all its content excluded
        self._exclude_below = _compile(glob for glob in options.exclude if glob.endswith(("/*", "/**")))

    def take(self, path: str) -> bool:
        """Whether an image with this id is included."""
        if self._include and not _matches(self._include, path):
            return False
        return not _matches(self._exclude, path)

    def enter(self, folder: str) -> bool:
        """Whether a folder with this id is to be listed."""
        return not _matches(self._exclude, folder) and not _matches(self._exclude_below, f"{folder}/")


def _matches(globs: tuple[_Glob, ...], path: str) -> bool:
    if not globs:
        return False
    name = path.rpartition("/")[2]
    return any(glob.match(path if of_path else name) for of_path, glob in globs)


def _compile(globs: Iterable[str]) -> tuple[_Glob, ...]:
    spellings = (spelling for glob in globs for spelling in _spellings(glob))
    return tuple((of_path, re.compile(translate(text))) for of_path, text in spellings)


def _spellings(glob: str) -> Iterator[tuple[bool, str]]:
    """The glob for fnmatch, with each ``**/`` as any folders and as none; and whether it has a slash."""
    glob = glob.removeprefix("./").rstrip("/")
    first, *rest = glob.split("**/")
    spellings = {first}
    for part in rest:
        spellings = {spelling + folders + part for spelling in spellings for folders in ("", "*/")}
    return (("/" in glob, spelling) for spelling in sorted(spellings))
