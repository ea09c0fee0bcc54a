"""Answers of earlier runs in a folder (--cache), by content, question and settings; knows no endpoint."""

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from vlmbatch.errors import ConfigError
from vlmbatch.records import Endpoint, Result

FILE = "answers.sqlite3"
BUSY_S = 30.0
"""How long to wait for another run that writes to the same cache."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoints (key BLOB PRIMARY KEY, endpoint TEXT NOT NULL) WITHOUT ROWID;
"""


class Cache:
    """Records of answers in an SQLite database that many runs may share, also at the same time.

    What is kept is written by the next that looks something up, which happens in a thread, or at the end.
    Trouble with the database never ends a run: it is told once, and the cache is left alone from then on.
    """

    def __init__(self, folder: str, tell: Callable[[str], None]) -> None:
        """The folder is made where it is missing; blocks. `tell` hears of trouble, in whatever thread.

        Raises:
            ConfigError: it cannot be used.
        """
        self._tell = tell
        self._broken = False
        self._path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._kept: deque[tuple[bytes, str]] = deque()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _database(self._path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"--cache {folder} cannot be used: {error}") from error

    def close(self) -> None:
        """Write what was kept since, and close; blocks."""
        with self._lock:
            self._write()
            self._broken = True  # for a thread that still looks something up
            self._database.close()

    def find(self, run: str, sha256: str, prompt: str) -> Mapping[str, Any] | None:
        """The record of an answer of a run with this digest about a file of this content; blocks."""
        with self._lock:
            self._write()
            return self._read("answers", "record", _key(run, sha256, prompt))

    def keep(self, result: Result) -> None:
        """Keep an answer, unless it is old, cut as --accept takes it, or of a fallback; returns at once."""
        content, done = result.content, result.completion
        is_new = done is not None and done.finish_reason != "length" and not result.is_known
        is_new = is_new and result.fallback is None  # the key says that another one answered
        if is_new and content is not None:
            self._kept.append((_key(result.run, content, result.prompt), json.dumps(result.to_record())))

    def endpoint(self, *asked: str) -> Endpoint | None:
        """Who answered the last time that the endpoint was found for these options; blocks."""
        with self._lock:
            told = self._read("endpoints", "endpoint", _key(*asked))
        try:
            return None if told is None else Endpoint(**{**told, "notes": tuple(told["notes"])})
        except (KeyError, TypeError):  # of another version of vlmbatch
            return None

    def keep_endpoint(self, endpoint: Endpoint, *asked: str) -> None:
        """Keep who was found for these options; blocks."""
        told = json.dumps({name: getattr(endpoint, name) for name in endpoint.__slots__})
        with self._lock:
            self._do("INSERT OR REPLACE INTO endpoints VALUES (?, ?)", [(_key(*asked), told)])

    def _read(self, table: str, column: str, key: bytes) -> dict[str, Any] | None:
        if self._broken:
            return None
        try:
            row = self._database.execute(f"SELECT {column} FROM {table} WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        try:
            found = None if row is None else json.loads(row[0])
        except (ValueError, TypeError, RecursionError):  # somebody has edited it
            return None
        return found if isinstance(found, dict) else None

    def _write(self) -> None:
        """Write what was kept since."""
        kept = [self._kept.popleft() for _ in range(len(self._kept))]
        if kept:
            self._do("INSERT OR REPLACE INTO answers VALUES (?, ?)", kept)

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
        self._tell(f"the cache {self._path} is not used any more: {error}; the run goes on without it")


def _database(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _in_turn(database, "PRAGMA journal_mode=WAL")  # who reads waits for nobody
        database.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last answers
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
    """Execute a statement for which SQLite itself does not wait for others."""
    database.execute(statement)


def _key(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
