"""Settings files: which of them are read, and what each of them may set.

The user's own file, and a file that the user names, may set every option. ./vlmbatch.toml may be part of a
downloaded folder: it may set only harmless options (OptionSpec.harmless).
"""

import os
import shlex
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmbatch import system
from vlmbatch.config import EXCLUSIVE, Option, options
from vlmbatch.config.masking import without_secrets
from vlmbatch.config.toml_options import LONGEST_SHOWN, KeyPlace, options_in
from vlmbatch.errors import ConfigError
from vlmbatch.machine import is_foreign, others_can_write

NAME = "vlmbatch.toml"
HERE = f"./{NAME}"
LARGEST_BYTES = 256 * 1024
PROVIDER_BACKENDS = ("litellm", "openrouter")
"""Backends with which the name of a model decides which company gets the images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of all files that were read, by their Python name.

    `places` says where each is set. `files` are the names of the files, as shown to the user. `from_here` are
    the options that ./vlmbatch.toml has set.
    """

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    places: Mapping[str, KeyPlace] = field(default_factory=dict, repr=False)
    files: tuple[str, ...] = ()
    from_here: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The lines to print: the files that were read, and the warnings about them."""
        return [f"settings from {' and '.join(self.files)}", *self.warnings] if self.files else []

    def check_model(self, backend: str) -> None:
        """Raise ConfigError if ./vlmbatch.toml has set the model, and this backend makes that a danger.

        Call it only if the model of the file is used.
        """
        if "model" not in self.from_here:
            return
        if backend in PROVIDER_BACKENDS:
            danger = "the model chooses the company that gets the images"
        elif backend == "llama-cpp":
            danger = "the model is a file that is loaded into this process"
        else:
            return
        raise ConfigError(
            f"{HERE} sets model, but with --backend {backend} {danger}; name the model with --model, or, if "
            f"you trust the file, add --config {HERE}"
        )


def read_settings(named: str | None) -> Settings:
    """The options of the file that the user named, else of the user's own file and of ./vlmbatch.toml.

    Where both set an option, ./vlmbatch.toml counts.

    Raises:
        ConfigError: a file cannot be read, is not TOML, has a key that is not an option, or sets an option
            that it may not set.
    """
    if named:
        return _trusted(Path(named), named)
    own = own_file()
    here = Path(NAME) if _is_file(Path(NAME)) else None
    if own is None or not _is_file(own):
        return Settings() if here is None else _here(here, own)
    trusted = _trusted(own, str(own))
    if here is None or here.samefile(own):
        return trusted
    near = _here(here, own)
    return Settings(
        values={**_not_excluded(trusted.values, near.values), **near.values},
        places={**trusted.places, **near.places},
        files=(*near.files, *trusted.files),
        from_here=near.from_here,
        warnings=trusted.warnings,
    )


def own_file() -> Path | None:
    """The path of the user's own file, which need not exist; None without a home."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    path = Path(os.path.expanduser(home)) / "vlmbatch" / NAME  # noqa: PTH111  # Path raises without a home
    return path if path.is_absolute() else None  # a relative one would be in the current folder


def _is_file(path: Path) -> bool:
    with suppress(PermissionError):  # in a container the home may belong to another user
        return path.is_file()
    return False


def _not_excluded(values: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """These options without those that an option of the stronger file excludes."""
    pairs = [*EXCLUSIVE, *(pair[::-1] for pair in EXCLUSIVE)]
    excluded = {weak for weak, strong in pairs if stronger.get(strong) not in (None, False)}
    return {name: value for name, value in values.items() if name not in excluded}


def _here(path: Path, own: Path | None) -> Settings:
    """The options of ./vlmbatch.toml, which may set harmless ones only."""
    values, places, _ = _read(path, HERE)
    if protected := _protected(values):
        elsewhere = "" if own is None else f", or move these options to {shlex.quote(str(own))}"
        keys = ", ".join(_shown(o, values[o.name]) for o in protected)
        raise ConfigError(
            f"{HERE} sets {keys}, which it may not set: the file may have come with downloaded images, and "
            "could send your keys, images or files to other people, or replace files; if you trust it, add "
            f"--config {HERE}{elsewhere}"
        )
    return Settings(values=values, places=places, files=(HERE,), from_here=frozenset(values))


def _trusted(path: Path, shown: str) -> Settings:
    """The options of a file of the user."""
    values, places, found = _read(path, shown)
    if protected := _protected(values):
        _require_own(path, shown, found, ", ".join(o.key for o in protected))
    warnings = tuple(_warnings(values, shown, found))
    return Settings(values=values, places=places, files=(shown,), warnings=warnings)


def _protected(values: Mapping[str, Any]) -> list[Option]:
    """The options among these that ./vlmbatch.toml may not set."""
    return [o for o in options() if o.name in values and not o.spec.is_harmless(values[o.name])]


def _shown(option: Option, value: object) -> str:
    """The key of an option, with its value if other values are harmless."""
    if not callable(option.spec.harmless):
        return option.key
    text = str(value)
    return f"{option.key} = {text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + '...'!r}"


def _require_own(path: Path, shown: str, found: os.stat_result, keys: str) -> None:
    """Raise ConfigError unless only the user, or root, can write to the file; terminals are not checked."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        return
    danger = f"{shown} sets {keys}, but"
    quoted = shlex.quote(str(path))
    if is_foreign(found):
        raise ConfigError(
            f"{danger} it belongs to another user (number {found.st_uid}); make it yours with: "
            f"chown {system.user_id()} {quoted}"
        )
    if others_can_write(found):
        raise ConfigError(f"{danger} other users can change it; prevent that with: chmod go-w {quoted}")


def _warnings(values: Mapping[str, Any], shown: str, found: os.stat_result) -> Iterable[str]:
    """Yield a warning if other users can read a key or a password in the file."""
    secret = _secrets(values) if system.HAS_OWNERS else []
    if secret and stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield (
            f"other users can read {', '.join(secret)} in {shown}; prevent that with: "
            f"chmod 600 {shlex.quote(shown)}"
        )


def _secrets(values: Mapping[str, Any]) -> list[str]:
    """The keys of the file whose value has a key or a password."""
    has_secret = {
        "api-key": bool(values.get("api_key")),
        "header": bool(values.get("header")),
        "base-url": any("@" in url for url in values.get("base_url") or ()),
        "fallback": any("@" in text.partition("@http")[2] for text in values.get("fallback") or ()),
        "extra-body": without_secrets(values) != dict(values),
    }
    return [key for key, has_one in has_secret.items() if has_one]


def _read(path: Path, shown: str) -> tuple[dict[str, Any], dict[str, KeyPlace], os.stat_result]:
    """The options in a file, their places, and the owner and mode of the same file."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # a file of the kernel has no size, and to read some of them waits or takes something away
            has_content = found.st_size or not stat.S_ISREG(found.st_mode)
            data = file.read(LARGEST_BYTES + 1) if has_content else b""
    except OSError as error:
        raise ConfigError(f"{shown}: {error.strerror}") from error
    if len(data) > LARGEST_BYTES:
        raise ConfigError(f"{shown} is larger than {LARGEST_BYTES // 1024} KiB; name a settings file")
    return *options_in(data, shown), found
