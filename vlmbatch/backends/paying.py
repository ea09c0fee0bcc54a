"""Lets the error over a useless answer tell what that has cost."""

from collections.abc import Iterator
from contextlib import contextmanager

from vlmbatch.errors import BackendError
from vlmbatch.records import Usage


@contextmanager
def paid(usage: Usage, cost: float | None) -> Iterator[None]:
    """An answer that turns out to be of no use inside the ``with`` has been paid for all the same."""
    try:
        yield
    except BackendError as error:
        error.cost, error.tokens = cost, (usage.input_tokens, usage.output_tokens)
        raise
