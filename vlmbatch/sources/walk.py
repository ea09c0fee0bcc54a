"""Finds images below folders: decides which entries are walked, included, or counted as ignored."""

import os
from collections.abc import Callable, Iterator
from itertools import islice

from vlmbatch.errors import ResourceError
from vlmbatch.events import SourceProblem
from vlmbatch.imaging.formats import IMAGE_EXTENSIONS, NON_IMAGE_EXTENSIONS, looks_like_image
from vlmbatch.imaging.unread_kinds import unread_kind
from vlmbatch.sources.files import read_head, reason
from vlmbatch.sources.globs import Globs

CHUNK = 10_000
"""Number of names of a folder that are held at once, at about 100 bytes each."""

_IMAGE_ENDINGS = tuple(IMAGE_EXTENSIONS)
_NON_IMAGE_ENDINGS = tuple(NON_IMAGE_EXTENSIONS)


class Walk:
    """One pass over folders and files; visits each of the `roots` once, even if they are nested.

    A folder of up to `chunk` entries comes in byte order. A larger one is read in the order of the file
    system, and sorted `chunk` entries at a time, so that neither the memory nor the wait for the first image
    depends on its size; it stays open until its last chunk.
    """

    def __init__(
        self,
        globs: Globs,
        on_ignored: Callable[[str | None], None],
        on_problem: Callable[[SourceProblem], None],
        roots: frozenset[str] = frozenset(),
        chunk: int = CHUNK,
    ) -> None:
        """`on_ignored` gets the kind of each ignored entry that may hold pictures, such as PDF, else None."""
        self._globs = globs
        self._on_ignored = on_ignored
        self._on_problem = on_problem
        self._roots = roots
        self._chunk = chunk
        self._visited: set[str] = set()

    def images(self, path: str) -> Iterator[str]:
        """The ids of the images under a normalised `path`, or `path` itself if it is not a folder."""
        if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if a folder above is closed
            if self._globs.take(path) and self._is_first_visit(path):
                yield path
        elif self._is_first_visit(path):
            yield from self._below(path)

    def _below(self, root: str) -> Iterator[str]:
        """Walk depth first with an explicit stack; trees may be deeper than Python's recursion limit."""
        stack = [self._list(root)]
        while stack:
            for entry in stack[-1]:
                if entry.endswith("/"):
                    folder = entry[:-1]
                    if self._globs.enter(folder) and self._is_first_visit(folder):
                        stack.append(self._list(folder))
                        break
                elif self._globs.take(entry) and self._is_image(entry) and self._is_first_visit(entry):
                    yield entry
            else:
                stack.pop()

    def _list(self, folder: str) -> Iterator[str]:
        """The ids of the entries of a folder; those of folders end with a slash."""
        start = "" if folder == "." else folder.rstrip("/") + "/"
        names = self._names(folder)
        while chunk := list(islice(names, self._chunk)):
            # only beyond ASCII may the order of Python's strings differ from that of their bytes
            chunk.sort(key=None if "".join(chunk).isascii() else os.fsencode)
            for name in chunk:
                yield start + name

    def _names(self, folder: str) -> Iterator[str]:
        """The names in the order of the system, without hidden entries; those of folders end with a slash."""
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
                        self._on_ignored(None)
        except OSError as error:
            if trouble := ResourceError.behind(error):
                raise trouble from error
            self._on_problem(SourceProblem(path=folder, message=f"cannot be listed: {reason(error)}"))

    def _is_image(self, path: str) -> bool:
        """Whether to include a file of the walk; an ignored file is counted."""
        lower = path.lower()
        if lower.endswith(_IMAGE_ENDINGS):
            return True
        head = b"" if lower.endswith(_NON_IMAGE_ENDINGS) else self._head(path)
        if looks_like_image(head):
            return True
        self._on_ignored(unread_kind(path, head))
        return False

    def _head(self, path: str) -> bytes:
        """The first bytes of a file; empty if it cannot be read, which is reported."""
        try:
            return read_head(path)
        except OSError as error:
            self._on_problem(SourceProblem(path=path, message=f"cannot be read: {reason(error)}"))
            return b""

    def _is_first_visit(self, path: str) -> bool:
        """False for a root that was visited before, as a PATH or below another one."""
        if path not in self._roots:
            return True
        if path in self._visited:
            return False
        self._visited.add(path)
        return True


def _leads_to_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a regular file or a link to one; needs a system call for links only."""
    try:
        return entry.is_file() or _is_broken_link_to_image(entry)
    except PermissionError:
        return True  # reading it will fail, and the failure is recorded
    except OSError:  # ELOOP: the link points back to itself
        return False


def _is_broken_link_to_image(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a link with the name of an image whose target is missing: its disk may be unmounted."""
    named = entry.name.lower().endswith(_IMAGE_ENDINGS)
    return named and entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110  # as in `images`
