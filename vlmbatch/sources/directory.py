"""Images of folders and files that are named on the command line, found by walking lazily."""

import difflib
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

from vlmbatch.config.groups import InputOptions
from vlmbatch.errors import ConfigError
from vlmbatch.events import SourceProblem
from vlmbatch.images import ImageRef
from vlmbatch.sources.files import FileSource, reason
from vlmbatch.sources.globs import normalise
from vlmbatch.sources.walk import Walk


class DirectorySource(FileSource):
    """One or more PATHs, folders and files mixed, in the order typed; an image under two of them comes once.

    A folder is walked to any depth, and its ids come in byte order (as ``LC_ALL=C sort`` gives), but for
    folders of more than 10,000 entries, which come in sorted chunks, the same each time as long as nothing
    changes in them. Below it, hidden entries are skipped and linked folders are not followed, so that no
    loop is possible; a PATH that is itself hidden or a link to a folder is walked. A linked file is taken.
    An image is what has an image's extension, or no known one and an image's first bytes; a file that is
    named as PATH is always taken, unless --include or --exclude leave it out.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        options: InputOptions,
        on_problem: Callable[[SourceProblem], None] = lambda problem: None,
    ) -> None:
        """`on_problem` hears of each folder that cannot be listed, on the thread that iterates.

        Raises:
            ConfigError: a PATH does not exist.
        """
        for path in paths:
            check_exists(path)
        super().__init__(options, on_problem)
        self._paths = [normalise(path) for path in paths]

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield each image as soon as its folder, or so much of it, is listed."""
        walk = Walk(self._globs, self._ignore, self._tell, roots=frozenset(self._paths))
        for path in self._paths:
            for image in walk.images(path):
                yield ImageRef(id=image, uri=image)

    def count(self) -> int:
        """How many images there are now; walks on its own, also while another thread iterates."""
        walk = Walk(self._globs, lambda: None, lambda problem: None, roots=frozenset(self._paths))
        return sum(1 for path in self._paths for _ in walk.images(path))


def check_exists(path: str) -> None:
    """Raise ConfigError where there is nothing at a PATH, with the nearest name that is there."""
    if not path:
        raise ConfigError("a PATH is empty; name a folder or an image, or . for the current folder")
    try:
        found = Path(path).stat()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist{_hint(Path(path))}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be reached: {reason(error)}") from error
    if not found.st_nlink:  # as of . when somebody deletes the folder one stands in
        raise ConfigError(f"{path} has been deleted; stand in a folder that is there")


def _hint(path: Path) -> str:
    if path.is_symlink():
        return f"; it is a link to {path.readlink()}, which is gone"
    if any(character in path.name for character in "*?["):
        return f"; the shell found nothing that matches it, try: {path.parent} --include '{path.name}'"
    missing = list(takewhile(lambda step: not step.exists(), (path, *path.parents)))[-1]
    try:
        present = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, present, n=1)
    return f"; did you mean {missing.parent / near[0]}?" if near else ""
