"""Which values of a long parameter list the normal test run takes; `pytest -m long` takes the others."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly_long(values: Iterable[Any], normal: Collection[Any]) -> list[Any]:
    """All values as parameters, of which only those in `normal` are in the normal run."""
    values = list(values)
    assert all(value in values for value in normal)
    return [value if value in normal else long(value) for value in values]


def long(*values: Any) -> Any:
    """These values as parameters of a test outside the normal run."""
    return pytest.param(*values, marks=pytest.mark.long)
