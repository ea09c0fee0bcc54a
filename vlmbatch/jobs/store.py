"""The store: a folder or a URL with the images of jobs and the files of batches. All calls block."""

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from vlmbatch import strict_json
from vlmbatch.config.spec import redact_place, require
from vlmbatch.errors import ConfigError, ImageError, StoreAwayError
from vlmbatch.images import SourceImage
from vlmbatch.jobs.store_keys import IN_PLACE, checked, folder_of, is_day, is_own, own

ROOT_FILE = "vlmbatch-store.json"
"""The file with the id of the store: without it, the store is not there, for example an unmounted disk."""
LARGEST_ROOT_FILE = 4096
EXAMPLE = "write a folder, or for example s3://BUCKET/PATH"
MAKING_S = 2.0
"""How long, in seconds, an empty root file may be one that another process is writing."""
_MAYBE_AWAY = ("vanished", "io_error", "unreadable")
"""The kinds of failures that an image also has if the store itself is not there."""


class Store(ABC):
    """A place for images and files, by keys. Many threads may use it.

    `jobs/DAY/ID/N` is a copy that belongs to one job, `files/ID` a file of /v1/files, and `at/PATH` a file of
    the user that lies below the folder of the store already. Any other key is an ImageError.
    """

    def __init__(self, place: str) -> None:
        """`place` is the folder or the URL for messages, without secrets."""
        self.place = place
        self.identity = ""
        """The id of the store. A copy of the store has the same."""

    @classmethod
    def open(cls, place: str, *, create: bool = True) -> "Store":
        """The store in this folder, or at this URL, such as ``s3://BUCKET/PATH``; with `create`, it is made.

        Raises:
            ConfigError: it cannot be a store, or the store does not exist.
            MissingDependencyError: a URL needs another package.
            StoreAwayError: it cannot be reached, or is full.
        """
        folder = place.removeprefix("file://")
        require(
            bool(folder) and "\0" not in folder, f"--store {redact_place(place)!r} is no folder; {EXAMPLE}"
        )
        made: Store
        if "://" in folder:
            from vlmbatch.jobs.remote_store import RemoteStore  # fsspec, which a folder does not need

            made = RemoteStore(place)
        else:
            from vlmbatch.jobs.local_store import LocalStore

            made = LocalStore(Path(folder))
        return made._opened(create=create)

    def _opened(self, *, create: bool) -> Self:
        self._prepare(create=create)
        content = self._first_content()
        if content is None and create:
            self._make_root_file(json.dumps({"vlmbatch_store": secrets.token_hex(16)}).encode())
            content = self._first_content()
        require(content is not None, f"there is no store at {self.place}; correct --store")
        self.identity = _identity_in(content or b"")
        wrong = f"{self.place}/{ROOT_FILE} is not from vlmbatch; delete this file, or name another --store"
        require(bool(self.identity), wrong)
        return self

    def _first_content(self) -> bytes | None:
        """The content of the root file, also if another process is just making it; None without one."""
        end = time.monotonic() + MAKING_S
        try:
            while (content := self._root_content()) == b"" and time.monotonic() < end:
                time.sleep(0.02)
        except ImageError as error:
            if error.kind == "io_error":
                raise self._unread() from error
            raise ConfigError(
                f"--store {self.place} cannot be used: {ROOT_FILE} cannot be read; correct its permissions, "
                "or name another store"
            ) from error
        return content

    def _root_content(self) -> bytes | None:
        try:
            return self._read(ROOT_FILE, LARGEST_ROOT_FILE).data
        except ImageError as error:
            if error.kind == "vanished":
                return None
            raise

    def check(self) -> None:
        """Raise StoreAwayError if the store is not there, or if another one is in its place."""
        try:
            content = self._root_content()
        except ImageError as error:
            raise self._unread() from error
        if content is None or _identity_in(content) != self.identity:
            raise StoreAwayError(
                f"the store at {self.place} cannot be found any more; mount its disk, or start its server"
            )

    def _unread(self) -> StoreAwayError:
        return StoreAwayError(
            f"the store at {self.place} cannot be read; check its disk or server, and its permissions"
        )

    def read(self, key: str, *, max_bytes: int) -> bytes:
        """The bytes of the image with this key; see read_image()."""
        return self.read_image(key, max_bytes=max_bytes).data

    def read_image(self, key: str, *, max_bytes: int) -> SourceImage:
        """The image with this key; never more than one byte beyond `max_bytes` is read.

        It has the stamp of its file in the store, if the store is a folder.

        Raises:
            ImageError: it is gone, too large, or not a file.
            StoreAwayError: the store itself is not there.
        """
        key = checked(key)
        try:
            return self._read(key, max_bytes)
        except ImageError as error:
            raise self._told(error, "image") from error

    def open_read(self, key: str) -> BinaryIO:
        """The file with this key, to read it in parts; raises as read() does. Its methods raise OSError."""
        key = checked(key)
        try:
            return self._open_read(key)
        except ImageError as error:
            raise self._told(error, "file") from error

    def _told(self, error: ImageError, noun: str) -> ImageError:
        """The failure of one file; raises StoreAwayError if the store is not there."""
        if error.kind in _MAYBE_AWAY:
            self.check()
        if error.kind == "vanished":
            return ImageError(f"the {noun} is no longer in the store of the queue", kind="vanished")
        return error

    def put(self, key: str, data: bytes) -> None:
        """Store these bytes, all or none; raises StoreAwayError."""
        self._put(own(key), data)

    def put_file(self, key: str, source: BinaryIO) -> int:
        """Store the rest of this file, all or nothing; returns its size in bytes. Raises StoreAwayError."""
        return self._put_file(own(key), source)

    def size(self, key: str) -> int | None:
        """The size of the file with this key in bytes, None without one. Raises StoreAwayError."""
        return self._size(checked(key))

    def delete(self, key: str) -> None:
        """Delete the file with this key, if there is one; never a file of the user. Raises StoreAwayError."""
        if not checked(key).startswith(f"{IN_PLACE}/"):
            self._delete(key)

    def days(self) -> list[str]:
        """The days of the copies for jobs, such as 2026-12-01. Raises StoreAwayError."""
        return sorted(name for name in self._names("jobs") if is_day(name))

    def jobs_of(self, day: str) -> Iterator[tuple[str, str]]:
        """The id of the job and the key of each copy of this day. Raises StoreAwayError."""
        for key in self._keys_below(folder_of(day)):
            if is_own(key):
                yield key.split("/")[2], key

    def delete_day_if_empty(self, day: str) -> None:
        """Delete the folders of a day in the past that has no copies, and what a crash left in them.

        Raises StoreAwayError.
        """
        self._delete_empty(folder_of(day))

    @abstractmethod
    def key_of(self, path: Path) -> str | None:
        """The key of a file of the user that lies below the folder of the store; None for any other file."""

    @abstractmethod
    def _prepare(self, *, create: bool) -> None:
        """Make the folder; raises ConfigError and StoreAwayError."""

    @abstractmethod
    def _make_root_file(self, content: bytes) -> None:
        """Make the root file, unless another process has just made it; raises as open() does."""

    # below, the key is good; all of them raise StoreAwayError

    @abstractmethod
    def _read(self, key: str, max_bytes: int) -> SourceImage: ...

    @abstractmethod
    def _open_read(self, key: str) -> BinaryIO: ...

    @abstractmethod
    def _put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def _put_file(self, key: str, source: BinaryIO) -> int: ...

    @abstractmethod
    def _size(self, key: str) -> int | None: ...

    @abstractmethod
    def _delete(self, key: str) -> None: ...

    @abstractmethod
    def _names(self, folder: str) -> list[str]:
        """The names of the folders in this folder; none if it does not exist."""

    @abstractmethod
    def _keys_below(self, folder: str) -> Iterator[str]:
        """The keys of all files below this folder of a day, perhaps with files of others."""

    @abstractmethod
    def _delete_empty(self, folder: str) -> None: ...


def _identity_in(content: bytes) -> str:
    try:
        identity = strict_json.loads(content)["vlmbatch_store"]
    except (ValueError, KeyError, TypeError):
        return ""
    return identity if isinstance(identity, str) else ""
