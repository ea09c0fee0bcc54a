"""A store at a URL: S3, Google Cloud Storage, SFTP and so on, over fsspec."""

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from vlmbatch.backends.http.secret_patterns import LEAST_KEY, MASK, pattern_of
from vlmbatch.config.spec import redact_place
from vlmbatch.errors import (
    ConfigError,
    ImageError,
    MissingDependencyError,
    ResourceError,
    StoreAwayError,
    VlmbatchError,
)
from vlmbatch.images import SourceImage
from vlmbatch.jobs.store import EXAMPLE, ROOT_FILE, Store
from vlmbatch.jobs.store_keys import IN_PLACE
from vlmbatch.sources.files import reason

try:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem
except ImportError as missing:
    raise MissingDependencyError(
        "a --store at a URL needs a package that is not installed; type: pip install 'vlmbatch[queue]'"
    ) from missing

_making = threading.Lock()
"""In memory, two threads could both make the root file."""


class RemoteStore(Store):
    """The files are at the URL, under their keys."""

    def __init__(self, url: str) -> None:
        """Some schemes connect at once.

        Raises:
            ConfigError: it is not the URL of a file system.
            MissingDependencyError: the scheme needs another package.
            StoreAwayError: it cannot be reached.
        """
        super().__init__(redact_place(url).rstrip("/"))
        self._url = url
        wrong = f"--store {self.place} is not a URL for a store; {EXAMPLE}"
        if "::" in url:  # a chain, such as a cache in front of the store, which would show what is gone
            raise ConfigError(wrong)
        try:
            with self._errors(ImportError, ValueError, TypeError):
                self._fs, root = url_to_fs(url)
        except ImportError as error:
            raise MissingDependencyError(
                f"--store {self.place} needs another package; install it with pip (fsspec says: {error})"
            ) from error
        except (ValueError, TypeError) as error:
            raise ConfigError(wrong) from error
        self._root = root.rstrip("/")
        if isinstance(self._fs, LocalFileSystem) or not self._root:  # a LocalStore has more guards
            raise ConfigError(wrong)

    def key_of(self, path: Path) -> str | None:
        """None: no file of this machine lies at a URL."""
        return None

    def _prepare(self, *, create: bool) -> None:
        """Nothing: the bucket or the folder must be there."""

    def _make_root_file(self, content: bytes) -> None:
        try:
            with self._errors(FileNotFoundError, PermissionError, NotImplementedError), _making:
                self._fs.pipe_file(self._path(ROOT_FILE), content, mode="create")
        except FileExistsError:
            return  # another process was faster
        except (OSError, NotImplementedError) as error:
            raise ConfigError(
                f"--store {self.place} cannot be written: make its bucket or folder, or correct "
                "your rights there"
            ) from error
        except StoreAwayError:
            if self._root_content() is None:  # else S3 has refused one of two writes at the same time
                raise

    def _read(self, key: str, max_bytes: int) -> SourceImage:
        data = self._content(key, max_bytes)
        return SourceImage(data=data, sha256=hashlib.sha256(data).hexdigest(), stamp=None)

    def _content(self, key: str, max_bytes: int) -> bytes:
        try:
            with self._file_errors():
                data = bytes(self._fs.cat_file(self._path(key), start=0, end=max_bytes + 1))
        except StoreAwayError:
            with suppress(StoreAwayError):
                if self._size(key) == 0:  # S3 refuses to send the first bytes of an empty file
                    return b""
            raise
        if len(data) > max_bytes:
            raise ImageError(
                f"the file has more than {max_bytes:,} bytes; raise --max-bytes to accept it",
                kind="too_large",
            )
        return data

    def _open_read(self, key: str) -> BinaryIO:
        with self._file_errors():
            return cast(BinaryIO, self._fs.open(self._path(key), "rb"))

    def _put(self, key: str, data: bytes) -> None:
        with self._errors():
            try:
                self._fs.pipe_file(self._path(key), data)
            except FileNotFoundError:
                self._make_folders(key)
                self._fs.pipe_file(self._path(key), data)

    def _put_file(self, key: str, source: BinaryIO) -> int:
        # an upload from a stream that breaks off would store its first part
        with tempfile.TemporaryDirectory(prefix="vlmbatch-") as folder:
            path = Path(folder) / "file"
            try:
                with path.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            except OSError as error:
                raise ResourceError.behind(error) or StoreAwayError(
                    f"a temporary file for the store cannot be written in {tempfile.gettempdir()}: "
                    f"{reason(error)}; free space there, or name another folder in TMPDIR"
                ) from error
            with self._errors():
                try:
                    self._fs.put_file(str(path), self._path(key))
                except FileNotFoundError:
                    self._make_folders(key)
                    self._fs.put_file(str(path), self._path(key))
            return path.stat().st_size

    def _make_folders(self, key: str) -> None:
        """Make the folders of a key; S3 needs none, and SFTP does. Raises errors of the file system."""
        *folders, _ = key.split("/")
        for count in range(1, len(folders) + 1):
            with suppress(FileExistsError):
                self._fs.mkdir(self._path("/".join(folders[:count])), create_parents=False)

    def _size(self, key: str) -> int | None:
        try:
            with self._file_errors():
                self._fs.invalidate_cache()
                found = self._fs.info(self._path(key))
        except ImageError as error:
            if error.kind == "unreadable":
                raise self._unread() from error
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def _delete(self, key: str) -> None:
        with self._errors(), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def _names(self, folder: str) -> list[str]:
        with self._errors(), suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._fs.ls(self._path(folder), detail=False)
            return [path.rstrip("/").rpartition("/")[2] for path in found]
        return []

    def _keys_below(self, folder: str) -> Iterator[str]:
        with self._errors():
            self._fs.invalidate_cache()
            paths = self._fs.find(self._path(folder))
        return (f"{folder}/{'/'.join(path.split('/')[-2:])}" for path in paths)

    def _delete_empty(self, folder: str) -> None:
        if not any(self._keys_below(folder)):
            with self._errors(), suppress(FileNotFoundError):
                self._fs.rm(self._path(folder), recursive=True)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key.removeprefix(f'{IN_PLACE}/')}"

    @contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Turn the errors of one file in the ``with`` into an ImageError, and others as _errors() does."""
        with self._errors():
            try:
                yield
            except FileNotFoundError as error:
                raise ImageError("the file is not in the store", kind="vanished") from error
            except IsADirectoryError as error:
                raise ImageError("the key does not lead to a file", kind="not_a_file") from error
            except (PermissionError, UnicodeError) as error:
                raise ImageError("the file cannot be read; correct your rights", kind="unreadable") from error

    @contextmanager
    def _errors(self, *passed: type[Exception]) -> Iterator[None]:
        """Turn the errors of the file system in the ``with`` into those of vlmbatch, but for `passed`."""
        own: tuple[type[Exception], ...] = (VlmbatchError, FileExistsError, *passed)
        try:
            yield
        except own:
            raise
        except Exception as error:  # each scheme has a library with errors of its own
            raise ResourceError.behind(error) or StoreAwayError(
                f"the store at {self.place} cannot be used: {self._words_of(error)}; check its "
                "server and your rights there"
            ) from error

    def _words_of(self, error: Exception) -> str:
        """The words of an error, without the secrets of the URL."""
        lines = str(error).splitlines() or [type(error).__name__]
        rest = self._url.partition("://")[2]
        user, _, _ = rest.rpartition("@")
        _, _, query = rest.partition("?")
        texts = {user.partition(":")[2], query, *(pair.partition("=")[2] for pair in query.split("&"))} - {""}
        keys = frozenset(text for text in texts if len(text) >= LEAST_KEY)
        return pattern_of(keys, frozenset(texts - keys)).sub(MASK, lines[0])[:200]
