"""Reads deploy/compose.yaml with the values that it has without deploy/.env."""

import re
from typing import Any

import yaml
from documents import page

VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


def composed() -> dict[str, Any]:
    """The file with its defaults in place of variables, and a password where it needs one."""
    filled = VARIABLE.sub(
        lambda found: found[3] if found[2] == "-" else "secret", page("deploy/compose.yaml")
    )
    read: dict[str, Any] = yaml.safe_load(filled.replace("$$", "$"))
    return read
