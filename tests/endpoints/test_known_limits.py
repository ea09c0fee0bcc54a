"""What --concurrency auto stores for later runs: the best number of requests at once at an endpoint."""

import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import run
from endpoint import Endpoint as Server
from running import ran

from vlmbatch import system
from vlmbatch.endpoints.known_limits import (
    FILE,
    MOST_AGE_S,
    MOST_BYTES,
    MOST_ENTRIES,
    KnownLimits,
    user_folder,
)
from vlmbatch.events import RunStarted
from vlmbatch.records import Endpoint
from vlmbatch.sessions import open_session

Photos = Callable[..., Path]

HERE = Endpoint(
    backend="ollama", url="http://10.0.0.1:11434", model="m", digest="d1", slots=4, version="0.33.0"
)
NOW = 1_800_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vlmbatch"


def known(folder: Path, now: float = NOW) -> KnownLimits:
    """The limits as a new run reads them."""
    found = KnownLimits(folder, clock=lambda: now)
    found.read()
    return found


def kept(folder: Path, limit: int = 40) -> Path:
    """The file after a run that found this limit."""
    folder.parent.mkdir(exist_ok=True)
    known(folder).keep({HERE: limit})
    return folder / FILE


def planted(folder: Path, content: bytes) -> Path:
    """The file with this content."""
    file = kept(folder)
    file.write_bytes(content)
    return file


def test_a_later_run_knows_the_limit(folder: Path) -> None:
    """A limit is known to a later run, beside those of other endpoints, until a newer one replaces it."""
    kept(folder, 40)
    other = replace(HERE, url="http://10.0.0.2:11434")
    known(folder).keep({other: 7})
    assert (known(folder).limit(HERE), known(folder).limit(other)) == (40, 7)
    kept(folder, 12)
    assert (known(folder).limit(HERE), known(folder).limit(other)) == (12, 7)


@pytest.mark.parametrize(
    "changed",
    [
        {"backend": "openai"},
        {"url": "http://10.0.0.1:8000"},
        {"model": "n"},
        {"digest": "d2"},
        {"digest": None},
        {"slots": 8},
        {"slots": None},
        {"version": "0.34.0"},
        {"version": None},
    ],
)
def test_another_endpoint_or_model_is_unknown(folder: Path, changed: dict[str, Any]) -> None:
    """A limit counts only for the same backend, URL, model, weights, slots and version."""
    kept(folder)
    assert known(folder).limit(replace(HERE, **changed)) is None


@pytest.mark.parametrize(("age", "limit"), [(MOST_AGE_S, 40), (MOST_AGE_S + 1, None), (-1, None)])
def test_an_old_limit_does_not_count(folder: Path, age: int, limit: int | None) -> None:
    """A limit counts for thirty days, and not if it seems to come from the future."""
    kept(folder)
    assert known(folder, NOW + age).limit(HERE) == limit


def test_the_file_names_nothing_and_is_private(folder: Path) -> None:
    """The file holds no address and no name of a model, and only its user can read it."""
    file = kept(folder)
    stored = json.loads(file.read_text())
    assert (stored["v"], list(stored["limits"].values())) == (1, [[40, NOW]])
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in stored["limits"])
    if system.HAS_OWNERS:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_file_stays_small(folder: Path) -> None:
    """Only the newest entries are kept, and a full file is one that is read."""
    kept(folder)
    for start in (0, MOST_ENTRIES):
        many = [replace(HERE, model=f"m{start + n}") for n in range(MOST_ENTRIES)]
        known(folder, NOW + 1 + start).keep(dict.fromkeys(many, 1 << 20))
    found = known(folder, NOW + 1000)
    assert [found.limit(each) for each in (HERE, many[0], many[-1])] == [None, 1 << 20, 1 << 20]
    assert (folder / FILE).stat().st_size < MOST_BYTES


ENTRY = "0" * 32


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'"v"',
        b'{"v": 1}',
        b'{"v": 1, "limits": []}',
        b'{"v": 2, "limits": {}}',
        b'{"v": 1, "limits": {"x": NaN}}',
        b'{"v": 1, "limits": {}}' + b" " * MOST_BYTES,
    ],
    ids=range(11),
)
def test_a_damaged_file_is_ignored_and_replaced(folder: Path, content: bytes) -> None:
    """A file with content of another format counts as empty, and the next run replaces it."""
    planted(folder, content)
    assert known(folder).limit(HERE) is None
    kept(folder, 9)
    assert known(folder).limit(HERE) == 9


@pytest.mark.parametrize(
    "value", ["40", '"40"', "[40]", "[true, 1800000000]", "[0, 1800000000]", "[-4, 1800000000]",
              "[1e3, 1800000000]", '["40", 1800000000]', "[9999999, 1800000000]", "[40, null]", "null"]
)  # fmt: skip
def test_a_damaged_entry_is_ignored(folder: Path, value: str) -> None:
    """An entry with a limit that is no count is ignored, and the other entries still count."""
    other = replace(HERE, model="other")
    known(folder)
    file = kept(folder)
    mine = next(iter(json.loads(file.read_text())["limits"]))
    known(folder).keep({other: 7})
    stored = json.loads(file.read_text())
    stored["limits"][mine] = json.loads(value)
    file.write_text(json.dumps(stored))
    assert (known(folder).limit(HERE), known(folder).limit(other)) == (None, 7)


def test_a_link_is_neither_read_nor_followed(folder: Path, tmp_path: Path) -> None:
    """A link in the place of the file is not read; the next run replaces the link and not its target."""
    file = kept(folder)
    target = tmp_path / "mine.json"
    file.rename(target)
    before = target.read_bytes()
    file.symlink_to(target)
    assert known(folder).limit(HERE) is None
    kept(folder, 9)
    assert (target.read_bytes(), file.is_symlink(), known(folder).limit(HERE)) == (before, False, 9)


def test_a_folder_that_is_a_link_is_not_used(folder: Path, tmp_path: Path) -> None:
    """A link in the place of the folder is not followed, neither to read nor to write."""
    before = kept(folder).read_bytes()
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere, target_is_directory=True)
    assert known(folder).limit(HERE) is None
    kept(folder, 9)
    assert (elsewhere / FILE).read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_does_not_hang_a_run(folder: Path) -> None:
    """A FIFO in the place of the file is not read, and is replaced."""
    file = kept(folder)
    file.unlink()
    os.mkfifo(file)
    assert known(folder).limit(HERE) is None
    kept(folder, 9)
    assert known(folder).limit(HERE) == 9


@pytest.mark.skipif(not system.HAS_OWNERS, reason="the mode of a file says nothing here")
@pytest.mark.parametrize("name", ["", FILE])
def test_what_others_can_change_is_not_used(folder: Path, name: str) -> None:
    """A file or a folder that all users can change is ignored."""
    kept(folder)
    (folder / name).chmod(0o777)
    assert known(folder).limit(HERE) is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["", FILE])
def test_what_another_user_owns_is_not_used(folder: Path, name: str) -> None:
    """A file or a folder of another user is ignored, and nothing is written to such a folder."""
    before = kept(folder).read_bytes()
    os.chown(folder / name, 4711, 4711)
    assert known(folder).limit(HERE) is None
    if not name:
        kept(folder, 9)
        assert (folder / FILE).read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_root_makes_no_folder_in_the_home_of_a_user(folder: Path) -> None:
    """With sudo, nothing is made in the home of another user, since that user could not change it later."""
    folder.parent.mkdir()
    os.chown(folder.parent, 4711, 4711)
    known(folder).keep({HERE: 9})
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("home", [None, Path(os.devnull) / "vlmbatch"])
def test_without_a_usable_home_nothing_is_known(home: Path | None) -> None:
    """If there is no folder, or it cannot be made, nothing is stored, and no error is raised."""
    found = KnownLimits(home)
    found.keep({HERE: 9})
    found.read()
    assert found.limit(HERE) is None


def test_a_failed_write_leaves_nothing_behind(folder: Path) -> None:
    """If the file cannot be replaced, its folder holds no other new file, and no error is raised."""
    file = kept(folder)
    file.unlink()
    (file / "full").mkdir(parents=True)
    known(folder).keep({HERE: 9})
    assert list(folder.iterdir()) == [file]


def test_many_runs_at_once_never_tear_the_file(folder: Path) -> None:
    """While many runs write at once, each reader gets a whole file, and no other file is left."""
    kept(folder)
    stop = threading.Event()
    torn: list[str] = []

    def look() -> None:
        while not stop.is_set():
            text = (folder / FILE).read_text()
            if not (text.startswith('{"v": 1') and text.endswith("}}")):
                torn.append(text)

    def write(number: int) -> None:
        mine = [replace(HERE, model=f"{number}-{n}") for n in range(20)]
        for limit in range(1, 20):
            known(folder).keep(dict.fromkeys(mine, limit))

    reader = threading.Thread(target=look)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert torn == []
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_the_folder_is_the_one_of_the_system(tmp_path: Path) -> None:
    """The folder is below XDG_CACHE_HOME, else LOCALAPPDATA, and never below the current folder."""
    assert user_folder({"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": "x"}) == tmp_path / "vlmbatch"
    assert user_folder({"XDG_CACHE_HOME": "", "LOCALAPPDATA": str(tmp_path)}) == tmp_path / "vlmbatch"
    assert user_folder({"XDG_CACHE_HOME": "cache"}) is None


@pytest.mark.parametrize(("library", "expected"), [(False, ".cache"), (True, "Library/Caches")])
def test_the_folder_is_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: bool, expected: str
) -> None:
    """Without these variables it is below ~/.cache, or below ~/Library/Caches where that exists (macOS)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    if library:
        (tmp_path / "Library" / "Caches").mkdir(parents=True)
    for empty in ({}, {"XDG_CACHE_HOME": "", "LOCALAPPDATA": ""}):
        assert user_folder(empty) == tmp_path / expected / "vlmbatch"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the runs of a test, which is made by the first run that stores something."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vlmbatch"


def at(endpoint: Server) -> dict[str, Any]:
    return {"backend": "vllm", "base_url": endpoint.url, "model": "tiny-vision"}


async def begins_at(endpoint: Server, **options: object) -> int:
    """How many requests at once a run begins with."""
    done = await ran(**at(endpoint) | options)
    assert done.error is None
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    return started.concurrency


async def test_a_run_begins_with_what_an_earlier_one_found(photos: Photos, home: Path) -> None:
    """If a run finds a lower limit, the next run begins with it, but not one at another endpoint."""
    photos(4)
    with Server(script=["503-busy"]) as endpoint, Server() as other:
        assert await begins_at(endpoint) == 16
        assert await begins_at(endpoint) == 8
        assert await begins_at(other) == 16


@pytest.mark.parametrize(
    ("backend", "owner", "first", "best"),
    [("ollama", "vllm", 2, 1), ("vllm", "vllm", 16, 8), ("llama-server", "llamacpp", 4, 2)],
)
async def test_a_limit_of_another_version_does_not_count(
    photos: Photos, home: Path, backend: str, owner: str, first: int, best: int
) -> None:
    """After an update of the server, a run does not use the stored limit; the old entry stays."""
    photos(4)
    with Server(script=["503-busy"], owned_by=owner, props={"total_slots": 4}) as endpoint:

        async def begins(version: str) -> int:
            endpoint.versions = dict.fromkeys(endpoint.versions, version)
            endpoint.props = {"total_slots": 4, "build_info": version}
            return await begins_at(endpoint, backend=backend)

        assert [await begins(version) for version in ("1.0", "1.0", "1.1", "1.0")] == [
            first,
            best,
            first,
            best,
        ]


async def test_a_large_limit_begins_with_its_half(photos: Photos, home: Path, endpoint: Server) -> None:
    """A run begins with half of a known limit above sixteen: the server may now have fewer slots."""
    photos(1)
    done = await ran(**at(endpoint))
    (started,) = done.of(RunStarted)
    assert isinstance(started, RunStarted)
    for limit, first in ((64, 32), (20, 16), (16, 16), (3, 3)):
        KnownLimits(home).keep({started.endpoint: limit})
        assert await begins_at(endpoint) == first


async def test_a_fixed_number_neither_reads_nor_stores(photos: Photos, home: Path) -> None:
    """With --concurrency N a run begins with N, and stores nothing, even after an overload."""
    photos(4)
    with Server(script=["503-busy", *["ok"] * 4, "503-busy"]) as endpoint:
        await begins_at(endpoint)
        before = (home / FILE).read_bytes()
        assert await begins_at(endpoint, concurrency=32) == 32
    assert (home / FILE).read_bytes() == before


async def test_a_run_without_a_measurement_stores_nothing(
    photos: Photos, home: Path, endpoint: Server
) -> None:
    """A run of too few images to find the best limit stores nothing."""
    photos(2)
    assert await begins_at(endpoint) == 16
    assert not home.exists()


async def test_sessions_share_what_is_known(photos: Photos, home: Path) -> None:
    """A session stores the limit that it found, and a later session begins with it."""
    image = photos(1) / "p0000.jpg"
    limits = []
    with Server(script=["503-busy"]) as endpoint:
        for _ in range(2):
            async with open_session(**at(endpoint)) as session:
                limits.append(session.supervisor.pool.limit)
                assert (await session.answer(image, session.question(prompt="?"))).ok
    assert limits == [16, 8]


@pytest.mark.parametrize(
    "variables", [{"XDG_CACHE_HOME": os.devnull}, {"XDG_CACHE_HOME": "", "HOME": "/dev/null"}]
)
def test_a_home_that_cannot_be_used_changes_nothing(photos: Photos, variables: dict[str, str]) -> None:
    """If nothing can be stored, the command prints no message about it and ends with 0."""
    photos(4)
    with Server(script=["503-busy"]) as endpoint:
        done = run(
            "run", "photos", "-b", "vllm", "--base-url", endpoint.url, "-m", "tiny-vision", **variables
        )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "limits.json" not in done.stderr
