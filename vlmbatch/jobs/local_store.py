"""A store in a folder of this machine, or of a disk that several machines share."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vlmbatch import system
from vlmbatch.errors import ConfigError, ImageError, ResourceError, StoreAwayError
from vlmbatch.images import ImageRef, SourceImage, Walked
from vlmbatch.jobs.store import ROOT_FILE, Store
from vlmbatch.jobs.store_keys import IN_PLACE, is_safe
from vlmbatch.sources.files import read_file, reason
from vlmbatch.sources.opening import ReplacedError, opened
from vlmbatch.writers.run_log import sync_folder

FULL = (errno.ENOSPC, errno.EDQUOT)
TRIES = 5
"""How often a new folder is made: another worker may delete it at once, since it is empty."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | system.BINARY

OWN_FOLDER = ".vlmbatch"
"""The folder with the copies and files of the store: no file of the user is there, and no run walks it."""


class LocalStore(Store):
    """The files lie below a folder, under their keys. No link below that folder is followed."""

    def __init__(self, folder: Path) -> None:
        """The folder may not exist yet; it may be a link."""
        super().__init__(str(folder))
        self._folder = Path(os.path.abspath(os.path.expanduser(folder)))  # noqa: PTH100, PTH111  # never fail
        self._own = self._folder / OWN_FOLDER

    def key_of(self, path: Path) -> str | None:
        """See Store. Links are resolved, so a link that leads out of the folder has no key."""
        try:
            real, root = (Path(os.path.realpath(each)) for each in (path, self._folder))
        except ValueError:  # a NUL in the path
            return None
        if root not in real.parents:
            return None
        below = real.relative_to(root).as_posix()
        return f"{IN_PLACE}/{below}" if is_safe(below) else None

    def _prepare(self, *, create: bool) -> None:
        try:
            if create:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif self._folder.exists() and not self._folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(f"--store {self.place} is a file, or below one; name a folder") from error
        except OSError as error:
            raise self._unusable(error, "made") from error

    def _make_root_file(self, content: bytes) -> None:
        new = self._folder / f".{ROOT_FILE}.{secrets.token_hex(8)}"
        try:
            with open(os.open(new, _NEW, 0o600), "wb") as file:
                _write_through(file, content)
            self._name_root_file(new, content)
            sync_folder(self._folder)
        except OSError as error:
            raise self._unusable(error, "written") from error
        finally:
            with suppress(OSError):  # the error above tells what is wrong
                new.unlink(missing_ok=True)

    def _name_root_file(self, new: Path, content: bytes) -> None:
        """Give the new root file its name, unless another process was faster."""
        path = self._folder / ROOT_FILE
        with suppress(FileExistsError):
            try:
                os.link(new, path)
            except FileExistsError:
                raise
            except OSError:  # many network file systems and exFAT have no hard links
                with open(os.open(path, _NEW, 0o600), "wb") as file:
                    _write_through(file, content)

    def _unusable(self, error: OSError, verb: str) -> ConfigError | StoreAwayError | ResourceError:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP):
            return ConfigError(
                f"--store {self.place} cannot be {verb}: {reason(error)}; correct its permissions, or name "
                "another folder"
            )
        return self._away(error)

    def _read(self, key: str, max_bytes: int) -> SourceImage:
        return read_file(self._image(key), max_bytes=max_bytes)

    def _open_read(self, key: str) -> BinaryIO:
        try:
            with opened(self._image(key)) as fd:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ImageError("the key does not lead to a file", kind="not_a_file")
                return os.fdopen(os.dup(fd), "rb")
        except (FileNotFoundError, NotADirectoryError, ReplacedError) as error:
            raise ImageError("the file does not exist", kind="vanished") from error
        except OSError as error:
            raise self._away(error) from error

    def _put(self, key: str, data: bytes) -> None:
        with self._new(key) as file:
            file.write(data)

    def _put_file(self, key: str, source: BinaryIO) -> int:
        with self._new(key) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            return file.tell()

    def _size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            self._refuse_links(path.parent)
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._away(error) from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _delete(self, key: str) -> None:
        path = self._path(key)
        try:
            self._refuse_links(path.parent)
            path.unlink(missing_ok=True)
        except (FileNotFoundError, NotADirectoryError):  # its folder may be gone, too
            return
        except OSError as error:
            raise self._away(error) from error
        if key.startswith("jobs/"):
            with suppress(OSError):  # another file is in the folder, or another worker has deleted it
                path.parent.rmdir()
                path.parent.parent.rmdir()

    def _names(self, folder: str) -> list[str]:
        return [entry.name for entry in self._entries(folder) if _is_folder(entry)]

    def _keys_below(self, folder: str) -> Iterator[str]:
        for job_id in self._names(folder):
            for entry in self._entries(f"{folder}/{job_id}"):
                if entry.is_file(follow_symlinks=False):
                    yield f"{folder}/{job_id}/{entry.name}"

    def _delete_empty(self, folder: str) -> None:
        for job_id in self._names(folder):
            for entry in self._entries(f"{folder}/{job_id}"):
                if entry.name.startswith("."):  # a file that was being written in a crash
                    with suppress(OSError):
                        Path(entry.path).unlink()
            with suppress(OSError):  # it still has a file
                (self._own / folder / job_id).rmdir()
        with suppress(OSError):
            (self._own / folder).rmdir()

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        path = self._own / folder
        try:
            self._refuse_links(path)
            with os.scandir(path) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._away(error) from error

    @contextmanager
    def _new(self, key: str) -> Iterator[BinaryIO]:
        """A new file, which has its name, and is on the disk, once the ``with`` ends without an error."""
        self.check()  # a folder below the mount point of a disk must not be made
        path = self._path(key)
        new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with open(self._make(new), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise self._away(error) from error
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def _make(self, new: Path) -> int:
        """A descriptor of this new file, whose folders are made, too. Raises OSError."""
        folders = [folder for folder in reversed(new.parents) if self._folder in folder.parents]
        for tries_left in reversed(range(TRIES)):
            try:
                for folder in folders:
                    folder.mkdir(mode=0o700, exist_ok=True)
                self._refuse_links(new.parent)
                return os.open(new, _NEW, 0o600)
            except FileNotFoundError:
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _refuse_links(self, folder: Path) -> None:
        """Raise ImageError if this folder of the store, or one above it in the store, is a link."""
        for each in (folder, *folder.parents):
            if each == self._folder:
                return
            if system.is_link(each.lstat()):
                raise ImageError("a folder of the store was replaced by a link", kind="not_a_file")

    def _image(self, key: str) -> ImageRef:
        root = os.path.realpath(self._folder)
        uri = f"{root.rstrip('/')}/{_below(key)}"
        return ImageRef(id=key, uri=uri, walked=Walked(root=root, is_link=False))

    def _path(self, key: str) -> Path:
        return self._folder / _below(key)

    def _away(self, error: OSError) -> StoreAwayError | ResourceError:
        told = f"the store at {self.place} cannot be used: {reason(error)}"
        if error.errno in FULL:
            return StoreAwayError(f"{told}; free space on its disk")
        return ResourceError.behind(error) or StoreAwayError(f"{told}; check its disk and its permissions")


def _below(key: str) -> str:
    """The path of a key below the folder of the store."""
    if key.startswith(f"{IN_PLACE}/"):
        return key.removeprefix(f"{IN_PLACE}/")
    return key if key == ROOT_FILE else f"{OWN_FOLDER}/{key}"


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False) and not system.is_junction(entry)


def _write_through(file: BinaryIO, content: bytes) -> None:
    """Write this to the file, and the file to the disk. Raises OSError."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
