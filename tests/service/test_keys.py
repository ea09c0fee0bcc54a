"""API keys: which are accepted, how the file of keys changes, and that no message shows a key."""

import os
import tomllib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from vlmbatch import system
from vlmbatch.errors import ConfigError
from vlmbatch.service.keys import CHECK_S, ApiKey, KeyRing, keys_in, new_key

SECRET = "sk-a-key-that-nothing-may-show"


def hashed(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def entry(name: str, key: str, *more: str) -> str:
    """The entry of a key in the file."""
    return "\n".join([f"[keys.{name}]", f'sha256 = "{hashed(key)}"', *more, ""])


class Ring:
    """A ring of keys with its file, its clock and its messages."""

    def __init__(self, file: Path | None, given: Sequence[str] = ()) -> None:
        self.file = file
        self.now = 0.0
        self.told: list[str] = []
        self.keys = KeyRing(file, given, tell=self.told.append, clock=lambda: self.now)

    def write(self, text: str) -> None:
        """Change the file; the next use of the ring checks it."""
        assert self.file is not None
        self.file.write_text(text)
        self.now += CHECK_S

    def name(self, presented: str) -> str | None:
        found = self.keys.find(presented)
        return None if found is None else found.name


def of_file(folder: Path, text: str, given: Sequence[str] = ()) -> Ring:
    file = folder / "keys.toml"
    file.touch(mode=0o600)
    file.write_text(text)
    return Ring(file, given)


def test_each_key_has_its_limits(tmp_path: Path) -> None:
    """A key of the file is found with its fields, a given key without limits, and no other text is a key."""
    more = ('rate = "60/minute"', "concurrent = 2", 'models = ["tiny", "big"]')
    ring = of_file(
        tmp_path, entry("alice", "first key", *more) + entry('"b.c"', "zweiter Schlüssel"), [f"me:{SECRET}"]
    )
    assert ring.keys.find("first key") == ApiKey(
        name="alice", sha256=hashed("first key"), rate="60/minute", concurrent=2, models=("tiny", "big")
    )
    assert ring.name("zweiter Schlüssel") == "b.c"
    assert ring.keys.find(SECRET) == ApiKey(name="me", sha256=hashed(SECRET))
    for other in (
        "",
        "first",
        "first key ",
        "FIRST KEY",
        hashed("first key"),
        "alice",
        f"me:{SECRET}",
        "\ud800",
    ):
        assert ring.name(other) is None
    assert not ring.keys.is_empty
    assert Ring(None).keys.is_empty
    assert Ring(None).name("") is None


def test_a_fresh_key_is_accepted(tmp_path: Path) -> None:
    """The entry of a fresh key, added to the file, makes it a key; the entry does not have the key."""
    ring = of_file(tmp_path, "".join(new_key(name)[1] for name in ("alice", "a.b-c_D")))
    key, text = new_key("x.y")
    assert key.startswith("vb_")
    assert len(key) > 40
    assert key not in text
    assert tomllib.loads(text) == {"keys": {"x.y": {"sha256": hashed(key)}}}
    assert new_key("x.y")[0] != key
    assert ring.name(key) is None
    assert ring.file is not None
    ring.write(ring.file.read_text() + text)
    assert ring.name(key) == "x.y"
    with pytest.raises(ConfigError, match="write 1 to 64"):
        new_key("a b")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A key that is added or removed counts within a second; also if another file takes the place."""
    ring = of_file(tmp_path, entry("a", "key a") + entry("b", "key b"), [f"me:{SECRET}"])
    assert ring.file is not None
    ring.file.write_text(entry("b", "key b") + entry("c", "key c"))
    assert ring.name("key a") == "a"
    ring.now += CHECK_S
    assert [ring.name(key) for key in ("key a", "key b", "key c", SECRET)] == [None, "b", "c", "me"]
    other = tmp_path / "other"
    other.touch(mode=0o600)
    other.write_text(entry("b", "key b") + entry("d", "key d"))
    os.utime(other, ns=(0, ring.file.stat().st_mtime_ns))
    other.replace(ring.file)
    ring.now += CHECK_S
    assert [ring.name(key) for key in ("key b", "key c", "key d")] == ["b", None, "d"]
    assert ring.told == []


def test_a_broken_file_keeps_the_keys_from_before(tmp_path: Path) -> None:
    """Each change that cannot be used gives one message and no other keys, until the file is right again."""
    ring = of_file(tmp_path, entry("a", "key a"), [f"me:{SECRET}"])
    assert ring.file is not None
    for text, words in (
        ("[keys.b", "this is not TOML"),
        ("", "has no API key"),
        (entry("b", "key b", "ratte = 1"), "the field 'ratte' is not known; write only"),
        (entry("me", "key b"), "two API keys have the name 'me'"),
        (entry("b", SECRET), "have the same text"),
    ):
        ring.told.clear()
        ring.write(text)
        for _ in range(3):
            assert [ring.name(key) for key in ("key a", "key b", SECRET)] == ["a", None, "me"]
            ring.now += CHECK_S
        (message,) = ring.told
        assert words in message
        assert message.endswith("; until it is corrected, the service accepts the old API keys")
    ring.told.clear()
    ring.file.unlink()
    for _ in range(2):
        ring.now += CHECK_S
        assert ring.name("key a") == "a"
    assert len(ring.told) == 1
    ring.file.touch(mode=0o600)
    ring.write(entry("b", "key b"))
    assert [ring.name("key a"), ring.name("key b")] == [None, "b"]
    assert len(ring.told) == 1


@pytest.mark.skipif(not system.HAS_OWNERS, reason="Windows has no owners and modes")
def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """The file is refused if other users could add keys to it, until its mode is right again."""
    ring = of_file(tmp_path, entry("a", "key a"))
    assert ring.file is not None
    ring.file.chmod(0o606)
    with pytest.raises(ConfigError, match=f"chmod go-w {ring.file}"):
        Ring(ring.file)
    ring.write(entry("b", "key b"))
    assert [ring.name("key b"), len(ring.told)] == [None, 1]
    ring.file.chmod(0o600)
    ring.now += CHECK_S
    assert [ring.name("key b"), len(ring.told)] == ["b", 1]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """The file is refused if another user owns it."""
    ring = of_file(tmp_path, entry("a", "key a"))
    assert ring.file is not None
    os.chown(ring.file, 12345, 12345)
    with pytest.raises(ConfigError, match=r"belongs to another user .number 12345.*chown 0 "):
        Ring(ring.file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no API key; add an entry"),
        ("keys = 1", "keys is not a table"),
        (f"[key.a]\nsha256 = '{SECRET}'", "'key' is not known; write each key as a table"),
        (f"[keys]\na = '{SECRET}'", "the API key 'a' is not a table"),
        ("[keys.a]", "sha256 must be"),
        (f"[keys.a]\nsha256 = '{SECRET}'", "sha256 must be"),
        (f"[keys.a]\nkey = '{SECRET}'", "the field 'key' is not known"),
        ("[keys.a.b]\nsha256 = ''", 'write a name with a dot as [keys."a.NAME"]'),
        (entry("'a b'", "x"), "write 1 to 64"),
        (entry("a", "x", "rate = 60"), "rate must be a text"),
        (entry("a", "x", "rate = '60'"), "the API key 'a': rate '60' is not a rate"),
        (entry("a", "x", "concurrent = 0"), "concurrent must be"),
        (entry("a", "x", "concurrent = true"), "concurrent must be"),
        (entry("a", "x", "models = 'tiny'"), "models must be a list"),
        (entry("a", "x", "models = [1]"), "models must be a list"),
        ("\0", "UTF-8"),
    ],
)
def test_a_wrong_entry_is_named(text: str, words: str) -> None:
    """A mistake in the file is an error with the file and the entry; no value of the file is shown."""
    with pytest.raises(ConfigError) as caught:
        keys_in(text.encode(), "keys.toml")
    assert str(caught.value).startswith("keys.toml")
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([SECRET], "--service-key number 1 has no name; write --service-key NAME:KEY"),
        ([f"me:{SECRET}", f" :{SECRET}"], "--service-key number 2 has a name that cannot be used"),
        (["me:sk-a-short-key"], "at least 16 ASCII characters"),
        ([f"me:{SECRET} "], "no space"),
        ([f"me:{SECRET}\u00fc"], "ASCII"),
        ([f"me:{SECRET}", f"me:{SECRET}2"], "two API keys have the name 'me'"),
        ([f"me:{SECRET}", f"you:{SECRET}"], "the API keys 'me' and 'you' have the same text"),
    ],
)
def test_a_wrong_given_key_is_not_shown(given: list[str], words: str) -> None:
    """A given key without a name, too short or twice is an error that does not show it."""
    with pytest.raises(ConfigError) as caught:
        Ring(None, given)
    assert words in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a folder and a very large file are errors."""
    large = tmp_path / "large"
    large.write_bytes(bytes(2**20 + 1))
    for path, words in (
        (tmp_path / "no", "No such file"),
        (tmp_path, "not a regular"),
        (large, "larger than"),
    ):
        with pytest.raises(ConfigError, match=words):
            Ring(path)


def test_a_ring_does_not_keep_or_show_a_key() -> None:
    """Neither the text nor the hash of a key is in any repr, and the text is in no attribute."""
    ring = Ring(None, [f"me:{SECRET}"])
    shown = f"{ring.keys!r} {ring.keys.find(SECRET)!r}"
    assert SECRET not in shown
    assert hashed(SECRET) not in shown
    assert SECRET not in str(vars(ring.keys))
