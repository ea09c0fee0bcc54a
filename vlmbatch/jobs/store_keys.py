"""The keys of the store, in one place: no other key reaches a folder or a URL."""

import os
import re

from vlmbatch.errors import ImageError

IN_PLACE = "at"
"""Keys below it are files of the user, which lie below the folder of the store already."""
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OWN = re.compile(rf"jobs/{_DAY}/[A-Za-z0-9_-]+/[0-9]+|files/[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def is_own(key: str) -> bool:
    """Whether this is the key of a file of the store itself."""
    return _OWN.fullmatch(key) is not None


def own(key: str) -> str:
    """The key of a file of the store itself; raises ImageError for any other key."""
    if not is_own(key):
        raise _not_a_key(key)
    return key


def checked(key: str) -> str:
    """A key that leads to no place outside the store; raises ImageError for any other one."""
    first, _, path = key.partition("/")
    return key if first == IN_PLACE and is_safe(path) else own(key)


def is_safe(path: str) -> bool:
    """Whether this is a relative path, with slashes, that leads to the same file on each system."""
    bad = "\0\\:" if os.name == "nt" else "\0\\"  # a colon is usual in names elsewhere
    return all(part not in ("", ".", "..") and not set(part) & set(bad) for part in path.split("/"))


def is_day(name: str) -> bool:
    """Whether this is a day, such as 2026-12-01."""
    return re.fullmatch(_DAY, name) is not None


def folder_of(day: str) -> str:
    """The folder of the copies of a day; raises ImageError for any other name."""
    if not is_day(day):
        raise _not_a_key(day)
    return f"jobs/{day}"


def _not_a_key(key: str) -> ImageError:
    return ImageError(f"{key[:200]!r} is not a key of the store", kind="unreadable")
