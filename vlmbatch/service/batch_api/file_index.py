"""The files of clients: their content in the store, and what Redis knows of them. All calls block."""

import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

from vlmbatch import strict_json
from vlmbatch.service.batch_api.fields import Purpose
from vlmbatch.service.batch_api.pages import Page, SortedIds, decoded_ids

if TYPE_CHECKING:
    from vlmbatch.jobs.opening import Jobs

FILE_S = 30 * 24 * 3600
"""How long a file is kept."""
_IN_MEMORY = 1 << 20
_EXPIRY = "vlmbatch:file-expiry"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of a client. `scope` is the name of its API key, `bytes` its size, `created_at` in seconds."""

    id: str
    scope: str
    filename: str
    bytes: int
    purpose: Purpose
    created_at: int

    @classmethod
    def of(cls, values: Any) -> Self:
        """The file with these JSON values; raises a TypeError if they are not those of a file."""
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """JSON values; of() reads them back."""
        return asdict(self)

    def as_object(self) -> dict[str, Any]:
        """The object of OpenAI's form."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.created_at + FILE_S,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


def content_key(file_id: str) -> str:
    """Where the content of a file is in the store."""
    return f"files/{file_id}"


def new_file_id() -> str:
    """The id of a new file."""
    return f"file-{uuid.uuid4().hex}"


def temporary_file() -> BinaryIO:
    """A temporary file, in memory until it is large."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # the caller closes it


class FileIndex:
    """All files of a queue."""

    def __init__(self, jobs: "Jobs") -> None:
        """`jobs` has the Redis and the store."""
        self._store = jobs.store
        self._connection = jobs.queue.connection

    def write(self, file_id: str, source: BinaryIO, keep_s: int = FILE_S) -> int:
        """Store the content of a file that no client knows yet; returns its size in bytes.

        After `keep_s` seconds it is deleted, also if the service dies now.
        """
        with self._connection.errors():
            self._connection.redis.zadd(_EXPIRY, {file_id: time.time() + keep_s})
        return self._store.put_file(content_key(file_id), source)

    def show(self, file: StoredFile) -> None:
        """Let the client of this file see it; a second time changes nothing."""
        with self._connection.errors(), self._connection.redis.pipeline(transaction=True) as pipe:
            pipe.set(_file_key(file.id), json.dumps(file.as_json()))
            pipe.zadd(_scope_key(file.scope), {file.id: time.time()}, nx=True)
            pipe.execute()

    def find(self, file_id: str, scope: str) -> StoredFile | None:
        """The file with this id, if it belongs to this client."""
        (file,) = self._load([file_id])
        return file if file is not None and file.scope == scope else None

    def page(
        self, scope: str, *, after: str | None, limit: int, newest_first: bool, purpose: str | None
    ) -> Page[StoredFile]:
        """A part of the list of the files of this client; raises a Problem if `after` is not in it."""

        def load(ids: Sequence[str]) -> Iterator[StoredFile | None]:
            for file in self._load(ids):
                yield file if file is not None and purpose in (None, file.purpose) else None

        listed = SortedIds(self._connection, _scope_key(scope))
        return listed.page(load, after=after, limit=limit, newest_first=newest_first)

    def open(self, file_id: str) -> BinaryIO:
        """The content of a file; raises ImageError if it is gone."""
        return self._store.open_read(content_key(file_id))

    def delete(self, file: StoredFile) -> None:
        """Delete a file of a client."""
        with self._connection.errors(), self._connection.redis.pipeline(transaction=True) as pipe:
            pipe.delete(_file_key(file.id))
            pipe.zrem(_scope_key(file.scope), file.id)
            pipe.execute()
        self.discard(file.id)

    def discard(self, file_id: str) -> None:
        """Delete the content of a file that no client sees."""
        self._store.delete(content_key(file_id))
        with self._connection.errors():
            self._connection.redis.zrem(_EXPIRY, file_id)

    def delete_expired(self) -> None:
        """Delete all files that are too old."""
        with self._connection.errors():
            old = self._connection.redis.zrange(_EXPIRY, "-inf", time.time(), byscore=True)
        for file_id in decoded_ids(old):
            (file,) = self._load([file_id])
            if file is None:
                self.discard(file_id)
            else:
                self.delete(file)

    def _load(self, ids: Sequence[str]) -> Iterator[StoredFile | None]:
        with self._connection.errors():
            found = self._connection.redis.mget([_file_key(each) for each in ids])
        for text in found:
            yield None if text is None else StoredFile.of(strict_json.loads(text))


def _file_key(file_id: str) -> str:
    """What Redis knows of a file."""
    return f"vlmbatch:file:{file_id}"


def _scope_key(scope: str) -> str:
    """The ids of the files of a client."""
    return f"vlmbatch:files:{scope}"
