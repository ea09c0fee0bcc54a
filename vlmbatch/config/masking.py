"""Masks keys and passwords in the settings of a run, before they are stored next to its records."""

import json
import re
from collections.abc import Mapping
from typing import Any

MASK = "[key]"
_SECRET = re.compile(
    r"(?i)api[_-]?key|authorization|password|passwd|secret|credential|cookie|salt"
    r"|(access|auth|bearer|api|hf|session|refresh)[_-]?token|^(key|token)$"
)


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """These settings with masked secrets: the texts in an --extra-body that have the name of a secret."""
    body = settings.get("extra_body")
    try:
        value = json.loads(body) if isinstance(body, str) else None
    except (ValueError, RecursionError):
        return dict(settings)
    masked = _masked(value, hide=False)
    return dict(settings) if masked == value else {**settings, "extra_body": json.dumps(masked)}


def _masked(value: Any, *, hide: bool) -> Any:
    """The value of a JSON text; each text is masked with `hide`, else those with the name of a secret."""
    if isinstance(value, dict):
        return {
            name: _masked(item, hide=hide or _SECRET.search(name) is not None) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item, hide=hide) for item in value]
    return MASK if hide and isinstance(value, str) else value
