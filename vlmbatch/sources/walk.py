"""Finding images below folders: which entries are looked into, which are taken, which are counted."""

import os
from collections.abc import Callable, Iterator
from itertools import islice

from vlmbatch.errors import ResourceError
from vlmbatch.events import SourceProblem
from vlmbatch.imaging.formats import IMAGE_EXTENSIONS, NON_IMAGE_EXTENSIONS, looks_like_image
from vlmbatch.sources.files import read_head, reason
from vlmbatch.sources.globs import Globs

CHUNK = 10_000
"""Names of a folder that are held at once, at about 100 bytes each."""

_IMAGE_ENDINGS = tuple(IMAGE_EXTENSIONS)
_NON_IMAGE_ENDINGS = tuple(NON_IMAGE_EXTENSIONS)


class Walk:
    """One pass over folders and files; meets each of the `roots` once, though they lie in each other.

    A folder of up to `chunk` entries comes in byte order. A larger one is read and sorted so many entries at
    a time, in the order of the file system, so that neither memory nor the first image depends on its size;
    it stays open until its last chunk.
    """

    def __init__(
        self,
        globs: Globs,
        on_ignored: Callable[[], None],
        on_problem: Callable[[SourceProblem], None],
        roots: frozenset[str] = frozenset(),
        chunk: int = CHUNK,
    ) -> None:
        self._globs = globs
        self._on_ignored = on_ignored
        self._on_problem = on_problem
        self._roots = roots
        self._chunk = chunk
        self._met: set[str] = set()

    def images(self, path: str) -> Iterator[str]:
        """The ids of the images under a normalised `path`, or `path` itself where it is no folder."""
        if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where a folder above is closed
            if self._globs.take(path) and self._meet(path):
                yield path
        elif self._meet(path):
            yield from self._below(path)

    def _below(self, root: str) -> Iterator[str]:
        """Depth first, with a stack of its own, since trees may be deeper than Python's recursion."""
        stack = [self._list(root)]
        while stack:
            for entry in stack[-1]:
                if entry.endswith("/"):
                    folder = entry[:-1]
                    if self._globs.enter(folder) and self._meet(folder):
                        stack.append(self._list(folder))
                        break
                elif self._globs.take(entry) and self._is_image(entry) and self._meet(entry):
                    yield entry
            else:
                stack.pop()

    def _list(self, folder: str) -> Iterator[str]:
        """Ids of what a folder holds; those of folders end with a slash."""
        start = "" if folder == "." else folder.rstrip("/") + "/"
        names = self._names(folder)
        while chunk := list(islice(names, self._chunk)):
            # only beyond ASCII may the order of Python's strings be another than that of their bytes
            chunk.sort(key=None if "".join(chunk).isascii() else os.fsencode)
            for name in chunk:
                yield start + name

    def _names(self, folder: str) -> Iterator[str]:
        """Names as the system lists them, hidden entries left out; those of folders end with a slash."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        yield entry.name + "/"
                    elif _leads_to_file(entry):
                        yield entry.name
                    else:
                        self._on_ignored()
        except OSError as error:
            if trouble := ResourceError.behind(error):
                raise trouble from error
            self._on_problem(SourceProblem(path=folder, message=f"cannot be listed: {reason(error)}"))

    def _is_image(self, path: str) -> bool:
        """Whether to take a file met on the walk; counts it where not."""
        lower = path.lower()
        if lower.endswith(_IMAGE_ENDINGS):
            return True
        if lower.endswith(_NON_IMAGE_ENDINGS) or not self._looks_like_image(path):
            self._on_ignored()
            return False
        return True

    def _looks_like_image(self, path: str) -> bool:
        try:
            return looks_like_image(read_head(path))
        except OSError as error:
            self._on_problem(SourceProblem(path=path, message=f"cannot be read: {reason(error)}"))
            return False

    def _meet(self, path: str) -> bool:
        """Whether this is to be taken now; a root may have been met already, by its own name or on a walk."""
        if path not in self._roots:
            return True
        if path in self._met:
            return False
        self._met.add(path)
        return True


def _leads_to_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a regular file or a link to one; costs a call to the system for links only."""
    try:
        return entry.is_file() or _is_image_that_is_gone(entry)
    except PermissionError:
        return True  # reading it will fail, and that is told
    except OSError:  # ELOOP: the link leads back to itself
        return False


def _is_image_that_is_gone(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a link to nothing under the name of an image: its disk may just not be mounted."""
    named = entry.name.lower().endswith(_IMAGE_ENDINGS)
    return named and entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110  # as in `images`
