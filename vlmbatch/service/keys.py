"""The API keys of a service: which keys it accepts, and what a client with each of them may do.

The service keeps the SHA-256 of each key, never the key. The keys are random, so that a fast hash is enough.
"""

import hashlib
import hmac
import os
import re
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmbatch import system
from vlmbatch.config.spec import require
from vlmbatch.config.toml_options import parsed
from vlmbatch.errors import ConfigError
from vlmbatch.machine import is_foreign, others_can_write
from vlmbatch.service.rate_limits import limits_of

LEAST_CHARACTERS = 16
"""A shorter key of a user could be guessed."""
LARGEST_BYTES = 1024**2
CHECK_S = 1.0
"""The file is checked for changes at most once in this many seconds."""
FIELDS = ("sha256", "rate", "concurrent", "models")
EXAMPLE = 'sha256 = "..."'
NAME_RULE = "write 1 to 64 letters, digits, dots, hyphens or underscores"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(rf"[!-~]{{{LEAST_CHARACTERS},}}")
"""What a header can carry."""
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key: its name, the SHA-256 of its text in hexadecimal digits, and the limits of its client.

    `rate` is a text such as ``60/minute``, and `concurrent` the most requests at once; with None the client
    has the usual limits. `models` are the models that it may name; empty means all.
    """

    name: str
    sha256: str = field(repr=False)
    rate: str | None = None
    concurrent: int | None = None
    models: tuple[str, ...] = ()


def new_key(name: str) -> tuple[str, str]:
    """A new API key, and its entry for the file of --keys-file. The entry has only the digest of the key.

    Raises:
        ConfigError: the name cannot be used.
    """
    require(_NAME.fullmatch(name) is not None, f"{name!r} cannot be the name of an API key; {NAME_RULE}")
    key = f"vb_{secrets.token_urlsafe(32)}"
    quoted = f'"{name}"' if "." in name else name
    return key, f'[keys.{quoted}]\nsha256 = "{_hashed(key)}"\n'


class KeyRing:
    """All keys that a service accepts: those of a file, which may change at any time, and the given ones."""

    def __init__(
        self,
        file: Path | None,
        given: Sequence[str],
        *,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`given` are texts of the form NAME:KEY. `tell` gets a message if a changed file cannot be used.

        Raises:
            ConfigError: the file or a given key is wrong.
        """
        self._file = file
        self._tell = tell
        self._clock = clock
        self._given = tuple(_given(text, number) for number, text in enumerate(given, 1))
        self._keys: tuple[ApiKey, ...] = ()
        self._seen: _Signature | None = None
        self._checked = clock()
        self._load()

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a file nor a given key. No change of the file makes it true."""
        return not self._keys

    def find(self, presented: str) -> ApiKey | None:
        """The key with this text, or None. The time does not tell which key it was, or how much was right."""
        self._reload()
        digest = _hashed(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _reload(self) -> None:
        """Read the file again if it has changed; a file that cannot be used changes nothing."""
        now = self._clock()
        if self._file is None or now - self._checked < CHECK_S:
            return
        self._checked = now
        seen = _signature_at(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._load()
        except ConfigError as error:
            self._tell(f"{error}; until it is corrected, the service accepts the old API keys")

    def _load(self) -> None:
        """Raises ConfigError if the file cannot be used."""
        if self._file is None:
            self._keys = _distinct(self._given, "--service-key")
            return
        data, found = _read(self._file)
        self._seen = _signature(found)
        shown = str(self._file)
        self._keys = _distinct((*self._given, *keys_in(data, shown)), shown)


def keys_in(data: bytes, shown: str) -> tuple[ApiKey, ...]:
    """The keys in this content of a file; `shown` is its name for messages.

    Raises:
        ConfigError: it is not TOML, has no key, or an entry is wrong.
    """
    _, table = parsed(data, shown, EXAMPLE)
    for name in table:
        require(name == "keys", f"{shown}: {name!r} is not known; write each key as a table [keys.NAME]")
    entries = table.get("keys", {})
    require(
        isinstance(entries, Mapping), f"{shown}: keys is not a table; write each key as a table [keys.NAME]"
    )
    require(bool(entries), f"{shown} has no API key; add an entry [keys.NAME] with {EXAMPLE}")
    return tuple(_entry(name, fields, shown) for name, fields in entries.items())


def _entry(name: str, fields: object, shown: str) -> ApiKey:
    """The key of one entry; its values are never shown, since a key may be among them by mistake."""
    place = f"{shown}: the API key {name[:64]!r}"
    require(_NAME.fullmatch(name) is not None, f"{place} cannot have this name; {NAME_RULE}")
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{place} is not a table; write [keys.{name}] with {EXAMPLE} in the next line")
    for each, value in fields.items():
        is_table = isinstance(value, Mapping)
        require(not is_table, f'{place} has a table in it; write a name with a dot as [keys."{name}.NAME"]')
        is_known = each in FIELDS
        require(is_known, f"{place}: the field {each[:64]!r} is not known; write only {', '.join(FIELDS)}")
    sha256 = fields.get("sha256")
    if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise ConfigError(f"{place}: sha256 must be the SHA-256 of the key in 64 hexadecimal digits")
    rate = _rate(fields.get("rate"), place)
    concurrent = _concurrent(fields.get("concurrent"), place)
    return ApiKey(
        name=name,
        sha256=sha256.lower(),
        rate=rate,
        concurrent=concurrent,
        models=_models(fields.get("models", []), place),
    )


def _rate(value: object, place: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f'{place}: rate must be a text such as "60/minute"')
    limits_of(value, f"{place}: rate")
    return value


def _concurrent(value: Any, place: str) -> int | None:
    good = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
    require(good, f"{place}: concurrent must be a whole number of at least 1")
    return value  # type: ignore[no-any-return]  # as just checked


def _models(value: object, place: str) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(each, str) and each for each in value)):
        raise ConfigError(f'{place}: models must be a list of names such as ["qwen2.5vl"]')
    return tuple(value)


def _given(text: str, number: int) -> ApiKey:
    """The key in a text NAME:KEY. No message shows the text, which may be the key alone."""
    name, colon, key = text.partition(":")
    place = f"--service-key number {number}"
    require(bool(colon), f"{place} has no name; write --service-key NAME:KEY")
    require(_NAME.fullmatch(name) is not None, f"{place} has a name that cannot be used; {NAME_RULE}")
    require(
        _KEY.fullmatch(key) is not None,
        f"--service-key {name} must have at least {LEAST_CHARACTERS} ASCII characters after the colon, "
        "and no space; use a longer random key",
    )
    return ApiKey(name=name, sha256=_hashed(key))


def _distinct(keys: tuple[ApiKey, ...], place: str) -> tuple[ApiKey, ...]:
    """These keys; raises ConfigError if two have the same name or the same text, with this place."""
    by_name: dict[str, ApiKey] = {}
    by_hash: dict[str, ApiKey] = {}
    for key in keys:
        is_new = key.name not in by_name
        require(is_new, f"{place}: two API keys have the name {key.name!r}; rename or remove one of them")
        other = by_hash.get(key.sha256)
        if other is not None:
            raise ConfigError(
                f"{place}: the API keys {other.name!r} and {key.name!r} have the same text; give each "
                "client its own key"
            )
        by_name[key.name] = by_hash[key.sha256] = key
    return keys


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _signature(found: os.stat_result) -> _Signature:
    """Differs if the file has changed, or has another owner or mode."""
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _signature_at(path: Path) -> _Signature | None:
    """The signature of this file; None if it cannot be found."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The content of a file with API keys, and its owner and mode.

    Raises:
        ConfigError: it cannot be read, or other users could add API keys to it.
    """
    try:
        # a FIFO would block the event loop until its other end is open
        require(stat.S_ISREG(path.stat().st_mode), f"{path} is not a regular file; name a file with API keys")
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check --keys-file") from error
    require(
        len(data) <= LARGEST_BYTES,
        f"{path} is larger than {LARGEST_BYTES:,} bytes; name a file with API keys",
    )
    quoted = shlex.quote(str(path))
    if is_foreign(found):
        raise ConfigError(
            f"{path} belongs to another user (number {found.st_uid}), which could add API keys; "
            f"make it yours with: chown {system.user_id()} {quoted}"
        )
    require(
        not others_can_write(found),
        f"other users can add API keys to {path}; prevent that with: chmod go-w {quoted}",
    )
    return data, found
