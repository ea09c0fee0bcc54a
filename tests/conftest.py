"""Fixtures that many tests share."""

from collections.abc import Iterator

import pytest
from endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint with the models tiny-vision and tiny-text."""
    with Endpoint() as running:
        yield running
