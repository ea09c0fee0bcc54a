"""Stores answers of earlier runs in a folder (--cache), by content, prompt and run; sends no request."""

import json
import os
import shlex
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from vlmbatch import strict_json, system
from vlmbatch.errors import ConfigError
from vlmbatch.finish_reasons import is_cut
from vlmbatch.machine import is_foreign, others_can_write
from vlmbatch.records import Endpoint, Result

FILE = "answers.sqlite3"
BUSY_S = 30.0
"""How long to wait, in seconds, for another run that writes to the same cache."""
MOST_BYTES = 1 << 24
"""The largest record that is stored or read, as in an output."""
STEPS_A_TICK = 10_000
MOST_TICKS = 1_000
"""SQLite may take ten million steps for a statement, about a second; ours take dozens for each row."""
_TABLES = {
    "answers": "CREATE TABLE answers (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",
    "endpoints": "CREATE TABLE endpoints (key BLOB PRIMARY KEY, endpoint TEXT NOT NULL) WITHOUT ROWID",
}
"""The text that SQLite stores for each table."""
_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a statement raises; the second one if SQLite's message repeats a name that is no UTF-8."""
_END_WITH_A_NAME = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that names a second one; SQLite deletes any file that is named like this."""


class Cache:
    """Records of answers in an SQLite database that many runs may share, also at the same time.

    New answers wait in memory. The next lookup, which runs in a thread, writes them, or close() does.
    A failure of the database never ends a run: it is reported once, and the cache is not used from then on.
    The folder must belong to this user or to root alone, since each answer in it is trusted. The database
    may still come from elsewhere, for example with a data set: so it must have our tables and nothing else,
    and an entry that is too large, or is not a record of ours, is ignored.
    """

    def __init__(self, folder: str, tell: Callable[[str], None]) -> None:
        """Create the folder if it is missing; blocks. `tell` receives a failure, in any thread.

        Raises:
            ConfigError: the folder or its database cannot be used, or other users may change it.
        """
        self._tell = tell
        self._broken = False
        self._path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._unwritten: deque[tuple[bytes, str]] = deque()
        self._ticks = 0
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(self._path)
            self._database = _database(self._path, self._tick)
        except OSError as error:
            raise ConfigError(
                f"--cache {folder} cannot be used: {error.strerror or error}; name another folder"
            ) from error
        except _ERRORS as error:
            raise ConfigError(
                f"--cache {folder} cannot be used: {_words(error)}; name another folder"
            ) from error

    def close(self) -> None:
        """Write the waiting answers and close; blocks."""
        with self._lock:
            self._write()
            self._broken = True  # a thread may still do a lookup
            self._database.close()

    def find(self, run: str, sha256: str, prompt: str, *, scope: str = "") -> Mapping[str, Any] | None:
        """The record of an answer by run digest, file content, prompt and scope, or None; blocks."""
        with self._lock:
            self._write()
            return self._read("answers", "record", _key_of_answer(run, sha256, prompt, scope))

    def keep(self, result: Result, *, scope: str = "") -> None:
        """Store an answer, unless it is reused, truncated or of a fallback; returns at once.

        Only find() with the same scope returns it.
        """
        content, done = result.content, result.completion
        is_new = done is not None and not is_cut(done.finish_reason) and not result.is_known
        is_new = is_new and result.fallback is None  # the key names the endpoint, not its fallback
        if is_new and content is not None:
            record = json.dumps(result.to_record())
            if len(record) <= MOST_BYTES:
                key = _key_of_answer(result.run, content, result.prompt, scope)
                self._unwritten.append((key, record))

    def endpoint(self, *options: str) -> Endpoint | None:
        """The endpoint that these options last led to, or None; blocks."""
        with self._lock:
            stored = self._read("endpoints", "endpoint", _key(*options))
        return None if stored is None else _endpoint(stored)

    def keep_endpoint(self, endpoint: Endpoint, *options: str) -> None:
        """Store the endpoint that was found for these options; blocks."""
        stored = json.dumps({name: getattr(endpoint, name) for name in _ENDPOINT_TYPES})
        with self._lock:
            self._do("INSERT OR REPLACE INTO endpoints VALUES (?, ?)", [(_key(*options), stored)])

    def _read(self, table: str, column: str, key: bytes) -> dict[str, Any] | None:
        if self._broken:
            return None
        self._ticks = 0
        try:
            row = self._database.execute(f"SELECT {column} FROM {table} WHERE key = ?", (key,)).fetchone()
        except _ERRORS as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_TOOBIG:  # else one entry
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
        self._ticks = 0
        try:
            with self._database:
                self._database.execute("BEGIN")
                self._database.executemany(statement, rows)
        except _ERRORS as error:
            self._give_up(error)

    def _tick(self) -> bool:
        """SQLite calls this each STEPS_A_TICK steps of a statement, and interrupts it if this returns True.

        It counts steps and not seconds, since a statement may wait long for the disk or for another run.
        """
        self._ticks += 1
        return self._ticks > MOST_TICKS

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        self._tell(f"the cache {self._path} failed: {_words(error)}; the run continues without it")


_WAY_OUT = "move it away, or name another folder with --cache"


def _words(error: Exception) -> str:
    return "its database is damaged" if isinstance(error, UnicodeDecodeError) else str(error)


def _require_private(path: Path) -> None:
    """Raise ConfigError unless this user or root alone may change the folder and the files of the database.

    Raises:
        OSError: the folder cannot be reached.
    """
    folder = path.parent
    own = shlex.quote(str(folder / "mine"))
    _require_owner(folder, folder.stat(), f"name a folder of your own: --cache {own}")
    for name in (path.name, *(f"{path.name}-{end}" for end in ("wal", "shm", "journal"))):
        file = folder / name
        with suppress(FileNotFoundError):
            found = file.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise ConfigError(
                    f"--cache: {file} is a link, has a second name, or is not a regular file; {_WAY_OUT}"
                )
            _require_owner(file, found, _WAY_OUT)
            if name.endswith("-journal") and _names_a_file(file):
                raise ConfigError(f"--cache: {file} names another file, which would be deleted; {_WAY_OUT}")


def _names_a_file(journal: Path) -> bool:
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_END_WITH_A_NAME)))
        return file.read() == _END_WITH_A_NAME


def _require_owner(place: Path, found: os.stat_result, way_out: str) -> None:
    if is_foreign(found):
        raise ConfigError(f"--cache: another user owns {place} and could change answers; {way_out}")
    if others_can_write(found):
        mend = f"type: chmod go-w {shlex.quote(str(place))}; or " if found.st_uid == system.user_id() else ""
        raise ConfigError(f"--cache: other users can change {place} and the answers in it; {mend}{way_out}")


def _database(path: Path, tick: Callable[[], bool]) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        database.set_progress_handler(tick, STEPS_A_TICK)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES + 1000)  # a record and its key
        database.text_factory = bytes  # text that is not UTF-8 is a damaged entry, and not a failure
        database.execute("PRAGMA trusted_schema=OFF")
        _require_our_tables(database, path)
        _in_turn(database, "PRAGMA journal_mode=WAL")  # a reader never waits for a writer
        database.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last answers
        for table in _TABLES.values():
            database.execute(table.replace("TABLE", "TABLE IF NOT EXISTS", 1))
    except (*_ERRORS, ConfigError):
        database.close()
        raise
    return database


def _require_our_tables(database: sqlite3.Connection, path: Path) -> None:
    """Raise ConfigError if the database has a view, a trigger, an index or a table that is not ours.

    SQLite would run the text of such a view or trigger, which may never end.
    """
    ours = {(b"table", name.encode(), text.encode()) for name, text in _TABLES.items()}
    rows = _in_turn(database, f"SELECT type, name, sql FROM sqlite_master LIMIT {len(ours) + 1}")
    if not ours.issuperset(rows):
        raise ConfigError(
            f"--cache: {path} contains something other than answers of vlmbatch and was left unchanged; "
            f"{_WAY_OUT}"
        )


@retry(
    retry=retry_if_exception(lambda error: getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY),
    stop=stop_after_delay(BUSY_S),
    wait=wait_random(0.01, 0.1),
    reraise=True,
)
def _in_turn(database: sqlite3.Connection, statement: str) -> list[Any]:
    """The rows of a statement for which SQLite does not wait for another process by itself."""
    return database.execute(statement).fetchall()


_ENDPOINT_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("backend", "url", "model"), (str,)),
    **dict.fromkeys(("digest", "architecture"), (str, type(None))),
    **dict.fromkeys(("slots", "context"), (int, type(None))),
    "sees": (bool, type(None)),
    "notes": (list,),
}
"""The stored fields: all but the version. The server may have another version when it is up again."""


def _endpoint(stored: Mapping[str, Any]) -> Endpoint | None:
    """The endpoint in a stored mapping; None if it was edited, or written by another version."""
    if stored.keys() != _ENDPOINT_TYPES.keys():
        return None
    if not all(type(value) in _ENDPOINT_TYPES[name] for name, value in stored.items()):
        return None
    numbers_fit = all(stored[name] is None or 0 < stored[name] < 1 << 53 for name in ("slots", "context"))
    notes = tuple(stored["notes"])
    if not numbers_fit or not all(isinstance(note, str) for note in notes):
        return None
    return Endpoint(**{**stored, "notes": notes})


def _key_of_answer(run: str, sha256: str, prompt: str, scope: str) -> bytes:
    """The key of an answer; without a scope it is the key of older caches."""
    return _key(run, sha256, prompt, scope) if scope else _key(run, sha256, prompt)


def _key(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
