"""The URLs of --base-url, some of which may stand in files that change while a run goes on."""

from collections.abc import Sequence
from pathlib import Path

from vlmbatch.config.endpoint import is_file_of_urls
from vlmbatch.config.spec import check_url
from vlmbatch.errors import ConfigError


class Addresses:
    """What --base-url names. Everything here blocks."""

    def __init__(self, named: Sequence[str]) -> None:
        self._named = tuple(named)
        self._files = tuple(Path(name) for name in named if is_file_of_urls(name))
        self._seen = self._stamps()

    @property
    def may_change(self) -> bool:
        """Whether any stands in a file."""
        return bool(self._files)

    def read(self) -> tuple[str, ...]:
        """All URLs, each once, in the order they are named.

        Raises:
            ConfigError: a file cannot be read, names none, or has a line that is none.
        """
        self._seen = self._stamps()
        urls: list[str] = []
        for name in self._named:
            urls += _urls_in(Path(name)) if Path(name) in self._files else [name]
        return tuple(dict.fromkeys(urls))

    def has_changed(self) -> bool:
        """Whether a file is another one than when it was read last."""
        return self._stamps() != self._seen

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _urls_in(path: Path) -> list[str]:
    """The URLs in a file: one a line, # begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigError(f"--base-url {path} cannot be read: {told}") from error
    urls = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            check_url(text, f"line {number} of {path} (--base-url):")
            urls.append(text)
    if not urls:
        raise ConfigError(f"--base-url {path} names no URL; write one a line, such as http://gpu1:8000/v1")
    return urls
