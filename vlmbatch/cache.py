"""Stores answers of earlier runs in a folder (--cache), by content, prompt and run; sends no request."""

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from vlmbatch import strict_json
from vlmbatch.errors import ConfigError
from vlmbatch.finish_reasons import is_cut
from vlmbatch.records import Endpoint, Result

FILE = "answers.sqlite3"
BUSY_S = 30.0
"""How long to wait, in seconds, for another run that writes to the same cache."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoints (key BLOB PRIMARY KEY, endpoint TEXT NOT NULL) WITHOUT ROWID;
"""


class Cache:
    """Records of answers in an SQLite database that many runs may share, also at the same time.

    New answers wait in memory. The next lookup, which runs in a thread, writes them, or close() does.
    A failure of the database never ends a run: it is reported once, and the cache is not used from then on.
    """

    def __init__(self, folder: str, tell: Callable[[str], None]) -> None:
        """Create the folder if it is missing; blocks. `tell` receives a failure, in any thread.

        Raises:
            ConfigError: the folder or its database cannot be used.
        """
        self._tell = tell
        self._broken = False
        self._path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._unwritten: deque[tuple[bytes, str]] = deque()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _database(self._path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"--cache {folder} cannot be used: {error}") from error

    def close(self) -> None:
        """Write the waiting answers and close; blocks."""
        with self._lock:
            self._write()
            self._broken = True  # a thread may still do a lookup
            self._database.close()

    def find(self, run: str, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """The record of an answer by run digest, file content and prompt, or None; blocks."""
        with self._lock:
            self._write()
            return self._read("answers", "record", _key(run, sha256, prompt))

    def keep(self, result: Result) -> None:
        """Store an answer, unless it is reused, truncated or of a fallback; returns at once."""
        content, done = result.content, result.completion
        is_new = done is not None and not is_cut(done.finish_reason) and not result.is_known
        is_new = is_new and result.fallback is None  # the key names the endpoint, not its fallback
        if is_new and content is not None:
            self._unwritten.append((_key(result.run, content, result.prompt), json.dumps(result.to_record())))

    def endpoint(self, *options: str) -> Endpoint | None:
        """The endpoint that these options last led to, or None; blocks."""
        with self._lock:
            stored = self._read("endpoints", "endpoint", _key(*options))
        try:
            return None if stored is None else Endpoint(**{**stored, "notes": tuple(stored["notes"])})
        except (KeyError, TypeError):  # written by another version of vlmbatch
            return None

    def keep_endpoint(self, endpoint: Endpoint, *options: str) -> None:
        """Store the endpoint that was found for these options; blocks."""
        stored = json.dumps({name: getattr(endpoint, name) for name in endpoint.__slots__})
        with self._lock:
            self._do("INSERT OR REPLACE INTO endpoints VALUES (?, ?)", [(_key(*options), stored)])

    def _read(self, table: str, column: str, key: bytes) -> dict[str, Any] | None:
        if self._broken:
            return None
        try:
            row = self._database.execute(f"SELECT {column} FROM {table} WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        try:
            found = None if row is None else strict_json.loads(row[0])
        except (ValueError, TypeError):  # the entry was edited or damaged
            return None
        return found if isinstance(found, dict) else None

    def _write(self) -> None:
        """Write the waiting answers to the database."""
        rows = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if rows:
            self._do("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def _do(self, statement: str, rows: list[tuple[bytes, str]]) -> None:
        if self._broken:
            return
        try:
            with self._database:
                self._database.execute("BEGIN")
                self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        self._broken = True
        self._tell(f"the cache {self._path} failed: {error}; the run continues without it")


def _database(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _in_turn(database, "PRAGMA journal_mode=WAL")  # a reader never waits for a writer
        database.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last answers
        database.executescript(_TABLES)
    except sqlite3.Error:
        database.close()
        raise
    return database


@retry(
    retry=retry_if_exception(lambda error: getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY),
    stop=stop_after_delay(BUSY_S),
    wait=wait_random(0.01, 0.1),
    reraise=True,
)
def _in_turn(database: sqlite3.Connection, statement: str) -> None:
    """Execute a statement for which SQLite does not wait for another process by itself."""
    database.execute(statement)


def _key(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
