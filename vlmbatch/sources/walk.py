"""Finds images below folders: decides which entries are walked, included, or counted as ignored."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

from vlmbatch import system
from vlmbatch.errors import ResourceError
from vlmbatch.events import SourceProblem
from vlmbatch.images import ImageRef, Walked
from vlmbatch.imaging.formats import IMAGE_EXTENSIONS, NON_IMAGE_EXTENSIONS, looks_like_image
from vlmbatch.imaging.unread_kinds import unread_kind
from vlmbatch.sources.files import read_head, reason
from vlmbatch.sources.globs import Globs, start_below
from vlmbatch.sources.opening import Folders
from vlmbatch.sources.own_files import OwnFiles
from vlmbatch.sources.system_names import SYSTEM_NAMES, skipped_kind

CHUNK = 10_000
"""Number of names of a folder that are held at once, at about 100 bytes each."""

LINK = "\0"
"""Marks the name of a link in a list of names; no name has this character, and it sorts before all others."""

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
        *,
        on_skipped: Callable[[str], None] = lambda kind: None,
        own: OwnFiles,
        roots: frozenset[str] = frozenset(),
        chunk: int = CHUNK,
    ) -> None:
        """`on_ignored` gets the kind of each ignored entry that may hold pictures, such as PDF, else None.
        `on_skipped` gets the kind of each hidden or system entry, as `skipped_kind` names it.

        `own` are files of the run, which do not count as images.
        """
        self._globs = globs
        self._on_ignored = on_ignored
        self._on_problem = on_problem
        self._on_skipped = on_skipped
        self._own = own
        self._roots = roots
        self._chunk = chunk
        self._visited: set[str] = set()
        self.found = 0
        """The number of images so far."""
        self.excluded = 0
        """The folders and possible images that --include or --exclude have left out so far."""
        self.revisited = 0
        """How often the walk has come to a root that it had visited before."""

    def images(self, path: str) -> Iterator[ImageRef]:
        """The images under a normalised `path`, or `path` itself if it is not a folder."""
        for image, walked in self._images(path):
            self.found += 1
            yield ImageRef(id=image, uri=image, walked=walked)

    def count(self, path: str) -> int:
        """The number of images under a normalised `path`."""
        return sum(1 for _ in self._images(path))

    def _images(self, path: str) -> Iterator[tuple[str, Walked | None]]:
        """The id of each image, and how it was found. Without references, `count` takes half the time."""
        if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if a folder above is closed
            if path in self._own:
                self._on_ignored(None)
            elif not self._globs.take(path):
                self._exclude(path)
            elif self._is_first_visit(path):
                yield path, None
        elif self._is_first_visit(path):
            yield from self._below(path)

    def _below(self, root: str) -> Iterator[tuple[str, Walked]]:
        """Walk depth first with an explicit stack; trees may be deeper than Python's recursion limit."""
        plain, linked = Walked(root=root, is_link=False), Walked(root=root, is_link=True)
        with closing(Folders(root)) as folders:
            stack = [self._list(folders, root)]
            while stack:
                for entry in stack[-1]:
                    mark = entry[-1]
                    if mark == "/":
                        if self._enters(entry[:-1]):
                            stack.append(self._list(folders, entry[:-1]))
                            break
                        continue
                    path, walked = (entry[:-1], linked) if mark == LINK else (entry, plain)
                    if not self._globs.take(path):
                        self._exclude(path)
                    elif self._is_image(path, walked) and self._is_first_visit(path):
                        yield path, walked
                else:
                    stack.pop()

    def _enters(self, folder: str) -> bool:
        if not self._globs.enter(folder):
            self.excluded += 1
            return False
        return self._is_first_visit(folder)

    def _exclude(self, path: str) -> None:
        """Count a file that --include or --exclude leave out, if its name may be that of an image."""
        name = path.rpartition("/")[2]
        self.excluded += "." not in name or name.lower().endswith(_IMAGE_ENDINGS)

    def _list(self, folders: Folders, folder: str) -> Iterator[str]:
        """The ids of the entries of a folder; those of folders end with a slash, those of links with LINK."""
        start = start_below(folder)
        names = self._names(folders, folder)
        while chunk := list(islice(names, self._chunk)):
            # only beyond ASCII may the order of Python's strings differ from that of their bytes
            chunk.sort(key=None if "".join(chunk).isascii() else os.fsencode)
            for name in chunk:
                yield start + name

    def _names(self, folders: Folders, folder: str) -> Iterator[str]:
        """The names in the order of the system, with the marks of `_list`; without those that are skipped."""
        try:
            with folders.opened(folder) as place, os.scandir(place) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or name in SYSTEM_NAMES:
                        self._skip(start_below(folder) + name, name)
                    elif entry.is_file(follow_symlinks=False):
                        yield name
                    elif entry.is_dir(follow_symlinks=False) and not system.is_junction(entry):
                        yield name + "/"
                    elif _links_to_file(entry):
                        yield name + LINK
                    else:
                        self._on_ignored(None)
        except OSError as error:
            if trouble := ResourceError.behind(error):
                raise trouble from error
            self._on_problem(SourceProblem(path=folder, message=f"cannot be listed: {reason(error)}"))

    def _skip(self, path: str, name: str) -> None:
        """Count a hidden or system entry, unless it is a PATH itself, and so is walked."""
        if path not in self._roots and (kind := skipped_kind(name)) is not None:
            self._on_skipped(kind)

    def _is_image(self, path: str, walked: Walked) -> bool:
        """Whether to include a file of the walk; an ignored file is counted."""
        lower = path.lower()
        if lower.endswith(self._own.endings) and path in self._own:
            self._on_ignored(None)
            return False
        if lower.endswith(_IMAGE_ENDINGS):
            return True
        head = b"" if lower.endswith(_NON_IMAGE_ENDINGS) else self._head(path, walked)
        if looks_like_image(head):
            return True
        self._on_ignored(unread_kind(path, head))
        return False

    def _head(self, path: str, walked: Walked) -> bytes:
        """The first bytes of a file; empty if it cannot be read, which is reported, or is gone."""
        try:
            return read_head(ImageRef(id=path, uri=path, walked=walked))
        except FileNotFoundError:  # it had no name of an image: a temporary file of another program
            return b""
        except OSError as error:
            self._on_problem(SourceProblem(path=path, message=f"cannot be read: {reason(error)}"))
            return b""

    def _is_first_visit(self, path: str) -> bool:
        """False for a root that was visited before, as a PATH or below another one."""
        if path not in self._roots:
            return True
        if path in self._visited:
            self.revisited += 1
            return False
        self._visited.add(path)
        return True


def _links_to_file(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is a link to a regular file."""
    try:
        return entry.is_file() or _is_broken_link_to_image(entry)
    except PermissionError:
        return True  # reading it will fail, and the failure is recorded
    except OSError:  # ELOOP: the link points back to itself
        return False


def _is_broken_link_to_image(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a link with the name of an image whose target is missing: its disk may be unmounted."""
    if not (entry.name.lower().endswith(_IMAGE_ENDINGS) and entry.is_symlink()):
        return False
    try:
        entry.stat()
    except FileNotFoundError:
        return True
    return False
