"""Finding images below folders: which entries are looked into, which are taken, which are counted."""

import os
from collections.abc import Callable, Iterator

from vlmbatch.errors import ResourceError
from vlmbatch.events import SourceProblem
from vlmbatch.formats import IMAGE_EXTENSIONS, NON_IMAGE_EXTENSIONS, looks_like_image
from vlmbatch.sources.files import read_head, reason
from vlmbatch.sources.globs import Globs


class Walk:
    """One pass over folders and files; meets each of the `roots` once, though they lie in each other."""

    def __init__(
        self,
        globs: Globs,
        on_ignored: Callable[[], None],
        on_problem: Callable[[SourceProblem], None],
        roots: frozenset[str] = frozenset(),
    ) -> None:
        self._globs = globs
        self._on_ignored = on_ignored
        self._on_problem = on_problem
        self._roots = roots
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
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif entry.endswith("/"):
                folder = entry[:-1]
                if self._globs.enter(folder) and self._meet(folder):
                    stack.append(self._list(folder))
            elif self._globs.take(entry) and self._is_image(entry) and self._meet(entry):
                yield entry

    def _list(self, folder: str) -> Iterator[str]:
        """Ids of what a folder holds, hidden entries left out; those of folders end with a slash.

        Only names are kept of a folder, at about 100 bytes each, since a flat one may hold millions.
        """
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        self._add(names, entry)
        except OSError as error:
            if trouble := ResourceError.behind(error):
                raise trouble from error
            self._on_problem(SourceProblem(path=folder, message=f"cannot be listed: {reason(error)}"))
        names.sort(key=os.fsencode)
        start = "" if folder == "." else folder.rstrip("/") + "/"
        return (start + name for name in names)

    def _add(self, names: list[str], entry: "os.DirEntry[str]") -> None:
        if entry.is_dir(follow_symlinks=False):
            names.append(entry.name + "/")
        elif _leads_to_file(entry):
            names.append(entry.name)
        else:
            self._on_ignored()

    def _is_image(self, path: str) -> bool:
        """Whether to take a file met on the walk; counts it where not."""
        extension = os.path.splitext(path)[1].lower()  # noqa: PTH122  # a Path for each file takes longer than the walk
        if extension in IMAGE_EXTENSIONS:
            return True
        if extension in NON_IMAGE_EXTENSIONS or not self._looks_like_image(path):
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
        if path in self._met:
            return False
        if path in self._roots:
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
    named = os.path.splitext(entry.name)[1].lower() in IMAGE_EXTENSIONS  # noqa: PTH122  # as in _is_image
    return named and entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110  # likewise
