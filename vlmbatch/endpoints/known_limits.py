"""Stores how many requests at once were best at each endpoint, for later runs (--concurrency auto)."""

import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from vlmbatch import strict_json, system
from vlmbatch.machine import is_foreign, others_can_write
from vlmbatch.records import Endpoint

FILE = "limits.json"
FORMAT_VERSION = 1
"""The version of the file format; a file with another version is replaced."""
MOST_ENTRIES = 200
"""Only this many entries are stored: the newest ones."""
MOST_BYTES = 1 << 16
"""A larger file is not read."""
MOST_AGE_S = 30 * 86_400
"""An older entry does not count: the URL may now lead to another server."""
MOST_LIMIT = 1 << 20
_ERRORS = (OSError, ValueError)
"""Errors after which a run continues without the file: no permission, no space, damaged content."""


class KnownLimits:
    """The best limits of earlier runs, in a small file of the user.

    The key of an entry is a digest of backend, URL, model, weights, slots and server version. So the file
    contains no address and no name, and after a change of one of these the entry is not found. The value is
    the limit and the time of its measurement. Several runs may share the file: each replaces the whole file.
    If the file cannot be used, no method raises an error.
    """

    def __init__(self, folder: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        """`folder` is made when needed; with None, nothing is stored. `clock` is in seconds since 1970."""
        self._folder = folder
        self._clock = clock
        self._limits: dict[str, tuple[int, int]] = {}

    def read(self) -> None:
        """Read the file; blocks."""
        self._limits = {}
        with suppress(*_ERRORS):
            if self._folder is not None and _is_own(self._folder):
                self._limits = _entries(_content(self._folder / FILE), self._clock())

    def limit(self, endpoint: Endpoint) -> int | None:
        """The number of requests at once that was best at this endpoint; None if unknown."""
        found = self._limits.get(_key(endpoint))
        return None if found is None else found[0]

    def keep(self, limits: Mapping[Endpoint, int]) -> None:
        """Store these limits beside the entries of other runs; blocks."""
        if self._folder is None:
            return
        with suppress(*_ERRORS):
            _make_folder(self._folder)
            self.read()  # another run may have written since
            now = int(self._clock())
            new = {_key(endpoint): (limit, now) for endpoint, limit in limits.items()}
            entries = {**self._limits, **new}
            newest = sorted(entries.items(), key=lambda entry: entry[1][1])[-MOST_ENTRIES:]
            _replace_file(self._folder, json.dumps({"v": FORMAT_VERSION, "limits": dict(newest)}))


def user_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The cache folder of vlmbatch, which may not exist yet; None without a home folder."""
    given = environ.get("XDG_CACHE_HOME") or environ.get("LOCALAPPDATA")  # LOCALAPPDATA: Windows
    path = Path(given or os.path.expanduser("~/.cache"))  # noqa: PTH111  # Path raises without a home
    library = path.parent / "Library" / "Caches"
    if not given and library.is_dir():  # macOS
        path = library
    return path / "vlmbatch" if path.is_absolute() else None


def _key(endpoint: Endpoint) -> str:
    slots = "" if endpoint.slots is None else str(endpoint.slots)
    exact = (endpoint.digest or "", slots, endpoint.version or "")
    parts = (endpoint.backend, endpoint.url, endpoint.model, *exact)
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _is_own(folder: Path) -> bool:
    """Whether this is a folder, and only this user or root can change it."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and not system.is_link(found) and _is_private(found)


def _is_private(found: os.stat_result) -> bool:
    return not (is_foreign(found) or others_can_write(found))


def _content(path: Path) -> bytes:
    """The content of the file; raises OSError if it is not a regular file of this user, or too large."""
    if system.is_link(path.lstat()):  # on Windows, os.open cannot refuse a link
        raise OSError
    fd = os.open(path, os.O_RDONLY | system.NOFOLLOW | system.NONBLOCK | system.BINARY)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not _is_private(found) or found.st_size > MOST_BYTES:
            raise OSError
        return system.read_at(fd, MOST_BYTES, 0)
    finally:
        os.close(fd)


def _entries(content: bytes, now: float) -> dict[str, tuple[int, int]]:
    """The entries that still count, by their key; raises ValueError for content of another format."""
    stored = strict_json.loads(content)
    if (
        not isinstance(stored, dict)
        or stored.get("v") != FORMAT_VERSION
        or not isinstance(stored.get("limits"), dict)
    ):
        raise ValueError
    return {
        key: (value[0], value[1])
        for key, value in stored["limits"].items()
        if isinstance(value, list)
        and [type(part) for part in value] == [int, int]
        and 0 < value[0] <= MOST_LIMIT
        and 0 <= now - value[1] <= MOST_AGE_S
    }


def _make_folder(folder: Path) -> None:
    """Make the folder, unless the folder above belongs to another user, for example with sudo.

    Raises:
        OSError: the folder cannot be made, or another user owns or can change it.
    """
    if not os.path.lexists(folder):
        _require_owner(next(parent for parent in folder.parents if parent.exists()))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_owner(folder)
    if not _is_own(folder):
        raise PermissionError


def _require_owner(folder: Path) -> None:
    if folder.stat().st_uid != system.user_id():
        raise PermissionError


def _replace_file(folder: Path, text: str) -> None:
    """Replace the whole content of the file; a reader gets the old content or the new content."""
    fd, new = tempfile.mkstemp(prefix=FILE, dir=folder)  # it has mode 600
    try:
        with open(fd, "wb") as file:
            file.write(text.encode("ascii"))
        Path(new).replace(folder / FILE)
    except OSError:
        with suppress(OSError):
            Path(new).unlink()
        raise
