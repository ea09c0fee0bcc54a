"""Finds the images of the folders and files on the command line with a lazy walk."""

import difflib
import errno
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, takewhile
from pathlib import Path

from vlmbatch.config.groups import InputOptions
from vlmbatch.config.spec import redact
from vlmbatch.errors import ConfigError
from vlmbatch.events import SourceProblem
from vlmbatch.images import ImageRef
from vlmbatch.sources.files import FileSource, reason
from vlmbatch.sources.globs import normalise
from vlmbatch.sources.in_memory import InMemoryImage
from vlmbatch.sources.own_files import OwnFiles
from vlmbatch.sources.walk import Walk

_WHAT_TO_NAME = "; name a folder of images, or an image"
_LONGEST_SHOWN = 255  # a longer text without a dot is taken for base64, which has slashes but no dot
_SHOWN = 40  # the first characters of such a text, in a message


class DirectorySource(FileSource):
    """One or more PATHs, folders and files mixed, in the order typed; an image under two of them comes once.

    A folder is walked to any depth, and its ids come in byte order (like ``LC_ALL=C sort``). A folder of more
    than 10,000 entries comes in sorted chunks, in the same order each time unless it changes. Below a PATH,
    hidden entries and those of a system (system_names.py) are skipped and counted, and linked folders are
    not followed, so that no loop is possible; a PATH that is itself hidden, of a system or a link to a folder
    is walked. A linked file is included. A file is an image if it has
    the extension of an image, or no known extension and the first bytes of an image. A file that is itself a
    PATH is always included, unless --include or --exclude leave it out, or the run writes it.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        options: InputOptions,
        on_problem: Callable[[SourceProblem], None] = lambda problem: None,
        own: OwnFiles | None = None,
        in_memory: Sequence[InMemoryImage] = (),
    ) -> None:
        """`on_problem` receives each folder that cannot be listed, on the thread that iterates.

        `own` are files of the run, which do not count as images. The images `in_memory` come first.

        Raises:
            ConfigError: a PATH does not exist.
        """
        for path in paths:
            check_exists(path)
        super().__init__(options, on_problem, own, in_memory)
        self._paths = [normalise(path) for path in paths]
        self._walked = chain(self._in_memory, self._images())
        self._is_empty = False

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield each image as soon as its folder, or its chunk of a large folder, is listed."""
        return self._walked

    def holds_nothing(self) -> bool:
        """See protocols.Source."""
        first = next(self._walked, None)
        if first is not None:
            self._walked = chain([first], self._walked)
        return first is None and self._is_empty

    def _images(self) -> Iterator[ImageRef]:
        walk = Walk(
            self._globs,
            self._ignore,
            self._report,
            on_skipped=self._skip,
            own=self._own,
            roots=frozenset(self._paths),
        )
        for path in self._paths:
            before = (walk.found, walk.excluded, walk.revisited)
            yield from walk.images(path)
            if before == (walk.found, walk.excluded, walk.revisited) and Path(path).is_dir():
                self.empty_paths.append(path)
        self._is_empty = bool(self.empty_paths) and not walk.found and not walk.excluded

    def count(self) -> int:
        """The current number of images; a separate walk, possible while another thread iterates."""
        walk = Walk(
            self._globs,
            lambda kind: None,
            lambda problem: None,
            own=self._own,
            roots=frozenset(self._paths),
        )
        return len(self._in_memory) + sum(map(walk.count, self._paths))


def check_exists(path: str) -> None:
    """Raise ConfigError if a PATH does not exist; the message suggests the nearest existing name."""
    if not path:
        raise ConfigError("a PATH is empty; name a folder or an image, or . for the current folder")
    try:
        found = Path(path).stat()
    except FileNotFoundError as error:
        if path.startswith(("http://", "https://")):
            told = f"{redact(path)} is a URL, not a file"
            raise ConfigError(
                f"{told}; type --base-url before the URL of an endpoint, and download pictures first"
            ) from error
        if len(path) > _LONGEST_SHOWN and "." not in path:
            raise _no_path(path) from error
        raise ConfigError(f"{path} does not exist{_hint(Path(path))}") from error
    except ValueError as error:
        raise ConfigError(f"{path!r} cannot be a path: {error}{_WHAT_TO_NAME}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _no_path(path) from error
        raise ConfigError(
            f"{path} cannot be reached: {reason(error)}; check its folders, or name another"
        ) from error
    if not found.st_nlink:  # like . after the current folder has been deleted
        raise ConfigError(f"{path} has been deleted; change to a folder that exists")


def _no_path(text: str) -> ConfigError:
    """The error for a long text in the place of a PATH, such as a picture in base64."""
    return ConfigError(
        f"{text[:_SHOWN]}... does not exist, and has {len(text):,} characters; "
        "name a file, or in Python give bytes, decoded from base64"
    )


def _hint(path: Path) -> str:
    if path.is_symlink():
        return f"; it is a link to {path.readlink()}, which does not exist"
    if any(character in path.name for character in "*?["):
        return f"; the shell found no match for it, try: {path.parent} --include '{path.name}'"
    missing = list(takewhile(lambda step: not step.exists(), (path, *path.parents)))[-1]
    try:
        present = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return _WHAT_TO_NAME
    near = difflib.get_close_matches(missing.name, present, n=1)
    return f"; did you mean {missing.parent / near[0]}?" if near else _WHAT_TO_NAME
