"""A --cache whose folder, files, tables or entries come from another person."""

import json
import os
import random
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command import run
from endpoint import Endpoint
from pipeline.test_dedup import SHA256, seen
from planted import NO_FILES
from running import Ran, ran
from written_results import ENDPOINT, RUN, answered

from vlmbatch.cache import FILE, MOST_BYTES, Cache
from vlmbatch.errors import ConfigError
from vlmbatch.records import to_line

Photos = Callable[..., Path]

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
ENDLESS = f"{NUMBERS} SELECT x AS key, 1 AS record FROM n"
ENDLESS_VIEW = f"CREATE VIEW answers AS {ENDLESS}"
ANSWERS = "CREATE TABLE answers (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
COLUMNS = "key BLOB PRIMARY KEY, record TEXT NOT NULL"
A_TRIGGER = f"CREATE TRIGGER t AFTER INSERT ON answers BEGIN INSERT INTO answers {ENDLESS}; END"


def in_database(folder: Path, *statements: str) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    with closing(sqlite3.connect(folder / FILE)) as database, database:
        for statement in ("BEGIN", *statements):
            database.execute(statement)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "statements",
    [
        (ENDLESS_VIEW,),
        (ANSWERS, A_TRIGGER),
        (ANSWERS, "CREATE TABLE more (x)"),
        (ANSWERS, "CREATE INDEX i ON answers (record)"),
        ("CREATE TABLE answers (key BLOB PRIMARY KEY, record TEXT NOT NULL)",),
        (f"CREATE TABLE answers ({COLUMNS}, more TEXT AS (hex(record))) WITHOUT ROWID",),
        (f"CREATE TABLE answers ({COLUMNS} CHECK (length(randomblob(1000000000)))) WITHOUT ROWID",),
        tuple(f"CREATE TABLE t{n} (x)" for n in range(1000)),
    ],
)
def test_a_database_of_another_form_is_refused(folder: Path, statements: tuple[str, ...]) -> None:
    """A view, a trigger, an index or another table is refused at the start, and the database is unchanged."""
    in_database(folder, *statements)
    before = (folder / FILE).read_bytes()
    with pytest.raises(ConfigError, match="contains something other than answers of vlmbatch"):
        Cache(str(folder), print)
    assert (folder / FILE).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_the_command_names_the_database(photos: Photos, endpoint: Endpoint) -> None:
    """The command ends with exit code 2 and a message, and does not hang, before any request."""
    photos(1)
    in_database(Path("cache"), ENDLESS_VIEW)
    done = run("run", "photos", "-b", "ollama", "--base-url", endpoint.url, "--cache", "cache")
    assert done.returncode == 2
    assert f"--cache: cache/{FILE} contains something other than answers" in done.stderr
    assert not endpoint.questions


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal"])
@pytest.mark.parametrize("make", NO_FILES)
def test_a_file_that_is_none_is_refused(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    """A link, a FIFO, a device, or a file with a second name is refused as a file of the database."""
    folder.mkdir(mode=0o700)
    make(folder / name)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ConfigError, match=rf"{name} is a link.* name another folder with --cache"):
        Cache(str(folder), print)
    assert sorted(path.name for path in folder.iterdir()) == before


JOURNAL_MARK = bytes.fromhex("d9d505f920a163d7")


def test_a_journal_that_names_a_file_deletes_nothing(folder: Path) -> None:
    """A journal whose end names a file of the user is refused; SQLite would delete that file."""
    Cache(str(folder), print).close()
    precious = folder.with_name("precious")
    precious.write_text("precious")
    name = str(precious).encode()
    start = JOURNAL_MARK + struct.pack(">5I", 0, 0, 1, 512, 4096)
    end = struct.pack(">I", (1 << 30) // 4096 + 1) + name + struct.pack(">2I", len(name), sum(name))
    (folder / f"{FILE}-journal").write_bytes(start.ljust(512, b"\0") + end + JOURNAL_MARK)
    with pytest.raises(ConfigError, match=r"-journal names another file, .* another folder with --cache"):
        Cache(str(folder), print)
    assert precious.exists()


def test_a_plain_journal_is_replayed(folder: Path) -> None:
    """A journal that a crash has left at the start of a new cache is no reason to refuse the cache."""
    Cache(str(folder), print).close()
    (folder / f"{FILE}-journal").write_bytes(JOURNAL_MARK + bytes(504))
    Cache(str(folder), pytest.fail).close()


DAMAGE = (
    "PRAGMA writable_schema=ON",
    "UPDATE sqlite_master SET name = CAST(x'a7' AS TEXT)",
    "PRAGMA schema_version=99",
)


def test_a_damaged_name_is_no_bug(folder: Path) -> None:
    """A database is refused if SQLite's own message about it is no UTF-8, which Python cannot read."""
    Cache(str(folder), print).close()
    in_database(folder, *DAMAGE)
    with pytest.raises(ConfigError, match="its database is damaged; name another folder"):
        Cache(str(folder), print)


def test_a_name_that_is_damaged_later_ends_no_run(folder: Path) -> None:
    """The same damage during a run makes the run go on without the cache."""
    told = list[str]()
    cache = Cache(str(folder), told.append)
    in_database(folder, *DAMAGE)
    assert cache.find(RUN, SHA256, "default") is None
    (said,) = told
    assert "its database is damaged; the run continues without it" in said
    cache.close()


def test_a_new_cache_is_private(folder: Path) -> None:
    """The folder of a new cache is open to its user alone, and is accepted again with any usual umask."""
    usual = os.umask(0)
    try:
        for _ in range(2):
            Cache(str(folder / "deep"), print).close()
    finally:
        os.umask(usual)
    assert (folder / "deep").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", FILE])
def test_what_others_may_change_is_refused(folder: Path, name: str) -> None:
    """A folder or a database that all users may write to is refused, with the command that repairs it."""
    Cache(str(folder), print).close()
    (folder / name).chmod(0o777)
    with pytest.raises(ConfigError, match=f"can change .*type: chmod go-w {folder / name}") as caught:
        Cache(str(folder), print)
    assert "--cache" in str(caught.value)
    (folder / name).chmod(0o755)
    Cache(str(folder), print).close()


@pytest.mark.parametrize("name", ["", FILE])
def test_only_a_group_of_one_may_write(folder: Path, name: str) -> None:
    """A group may write only if it has the number of the user, as the usual group of a single user has."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another group")
    Cache(str(folder), print).close()
    (folder / name).chmod(0o775)
    Cache(str(folder), print).close()
    os.chown(folder / name, 0, 4711)
    with pytest.raises(ConfigError, match="other users can change"):
        Cache(str(folder), print)


@pytest.mark.parametrize("name", ["", FILE])
def test_files_of_other_users_are_refused(folder: Path, name: str) -> None:
    """A folder or a database of another user is refused, with a folder to name instead."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    Cache(str(folder), print).close()
    os.chown(folder / name, 4711, 4711)
    with pytest.raises(ConfigError, match=r"another user owns .* and could change answers") as caught:
        Cache(str(folder), print)
    assert "--cache" in str(caught.value)


def test_a_statement_without_end_is_interrupted(folder: Path) -> None:
    """If a table turns into an endless view during a run, the cache is given up and the run goes on."""
    told = list[str]()
    cache = Cache(str(folder), told.append)
    in_database(folder, "DROP TABLE answers", ENDLESS_VIEW)
    assert cache.find(RUN, SHA256, "default") is None
    (said,) = told
    assert "interrupted; the run continues without it" in said
    cache.close()


def test_many_statements_in_a_row_are_not_interrupted(folder: Path) -> None:
    """The limit of steps counts for each statement alone, not for all statements of a run."""
    cache = Cache(str(folder), pytest.fail)
    cache.keep(seen(answered("a.jpg")))
    for _ in range(20):
        cache._ticks = 900  # as the statement before has left it
        assert cache.find(RUN, SHA256, "default") is not None
    cache.close()


@pytest.mark.parametrize(
    "value",
    [
        "printf('%.*c', 20000000, 'x')",  # 20 MB
        "zeroblob(20000000)",
        "CAST(x'ff22' AS TEXT)",
        "x'ff00'",
        "7",
        "1e999",
        "printf('%.*c', 100000, '[')",
    ],
)
def test_an_entry_that_is_no_record_is_not_found(folder: Path, value: str) -> None:
    """An entry that is too large, or is not text, is ignored; all other entries are found."""
    cache = Cache(str(folder), pytest.fail)
    cache.keep(seen(answered("a.jpg")))
    cache.keep(seen(answered("b.jpg"), "cd" * 32))
    assert cache.find(RUN, SHA256, "default") is not None
    in_database(folder, f"UPDATE answers SET record = {value} WHERE record LIKE '%a.jpg%'")
    assert cache.find(RUN, SHA256, "default") is None
    assert cache.find(RUN, "cd" * 32, "default") is not None
    cache.close()


def test_an_answer_that_is_too_large_is_not_stored(folder: Path) -> None:
    """A record that could not be read back is not stored, and the cache goes on."""
    cache = Cache(str(folder), pytest.fail)
    cache.keep(seen(answered("a.jpg", "x" * MOST_BYTES)))
    cache.keep(seen(answered("b.jpg"), "cd" * 32))
    assert cache.find(RUN, SHA256, "default") is None
    assert cache.find(RUN, "cd" * 32, "default") is not None
    cache.close()


VALUES: tuple[object, ...] = (
    *(None, True, -1, 7, 1 << 60, 10**300, 1e300, 0.5, "", "text", "\udcff", [], [7], ["x"], {}, {"x": 7}),
    *({"sha256": "x"}, [[]] * 99),
)


def edited(value: Any, chance: random.Random) -> Any:
    """The JSON value with one part replaced, removed or added."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice([*value, "more"])
        if chance.random() < 0.1:
            return {key: part for key, part in value.items() if key != name}
        return value | {name: edited(value.get(name), chance)}
    return chance.choice(VALUES)


async def asked(endpoint: Endpoint, **options: Any) -> Ran:
    return await ran(backend="ollama", base_url=endpoint.url, model="tiny-vision", cache="cache", **options)


async def test_an_edited_record_never_ends_a_run(photos: Photos, endpoint: Endpoint) -> None:
    """With any part of a cached record replaced, the run ends well and writes a record for each image."""
    photos(3)
    await asked(endpoint)
    with closing(sqlite3.connect(Path("cache", FILE))) as database:
        whole = database.execute("SELECT key, record FROM answers").fetchall()
    chance, cached = random.Random(1), 0  # the same edits in each run of this test
    for _ in range(40):
        rows = [(json.dumps(edited(json.loads(record), chance)), key) for key, record in whole]
        with closing(sqlite3.connect(Path("cache", FILE))) as database, database:
            database.executemany("UPDATE answers SET record = ? WHERE key = ?", rows)
        done = await asked(endpoint)
        assert done.error is None
        assert [result.ok for result in done.results] == [True] * 3
        for result in done.results:
            to_line(result.to_record())
            cached += result.cached
    assert 0 < cached < 120


def test_an_edited_endpoint_is_whole_or_none(folder: Path) -> None:
    """With any part of a stored endpoint replaced, all its values have their types, or it is not found."""
    cache = Cache(str(folder), pytest.fail)
    whole = {name: getattr(ENDPOINT, name) for name in ENDPOINT.__slots__}
    chance = random.Random(2)
    for _ in range(300):
        cache.keep_endpoint(ENDPOINT, "x")
        with closing(sqlite3.connect(folder / FILE)) as database, database:
            database.execute("UPDATE endpoints SET endpoint = ?", [json.dumps(edited(whole, chance))])
        found = cache.endpoint("x")
        assert found is None or all(
            isinstance(getattr(found, name), type(value)) or value is None for name, value in whole.items()
        )
        assert found is None or found.slots is None or 0 < found.slots < 1 << 53
    cache.close()
